-- Replicas of the previous version, whose claims did not increment the fencing token, have ended.

DROP TRIGGER count_claim ON syncs;
DROP FUNCTION count_claim;

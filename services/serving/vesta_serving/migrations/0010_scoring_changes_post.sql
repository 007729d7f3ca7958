-- Replicas of the previous version, which did not increment the fencing token of a pass, have ended.

DROP TRIGGER count_change ON passes;
DROP FUNCTION count_change;

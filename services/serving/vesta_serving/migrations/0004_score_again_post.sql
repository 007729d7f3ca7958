-- Scores the datasets again: answers now say which concepts are predicted, and from which threshold.

UPDATE deployments SET generation = nextval('generations');
UPDATE passes SET
    generation = deployments.generation, embeds = embeds AND NOT done, page_token = '', scored_count = 0, item_count = 1, done = false,
    lease_expire_time = NULL
FROM deployments WHERE deployments.name = passes.deployment;

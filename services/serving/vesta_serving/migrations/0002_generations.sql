-- Generations never repeat, also where a deployment is deleted and made again under its name: those who keep its scores take a
-- lower generation for an older one.

CREATE SEQUENCE generations START WITH 1000000;   -- above all that deployments have counted by themselves so far
ALTER TABLE deployments ALTER COLUMN generation SET DEFAULT nextval('generations');

-- A login for each service, as production has: none of them can read another's tables, let alone
-- change its own. What each may do, `motcua migrate` grants. The passwords are the names: production
-- refuses them.
CREATE ROLE registry LOGIN PASSWORD 'registry';
CREATE ROLE intake LOGIN PASSWORD 'intake';
CREATE ROLE queue LOGIN PASSWORD 'queue';
CREATE ROLE reporting LOGIN PASSWORD 'reporting';

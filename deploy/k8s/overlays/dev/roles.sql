-- The logins that production gives out one by one (docs/kubernetes.md), with passwords that it refuses.
CREATE ROLE motcua_admin LOGIN CREATEROLE PASSWORD 'motcua';
CREATE DATABASE motcua OWNER motcua_admin;
SET ROLE motcua_admin;
CREATE ROLE registry LOGIN PASSWORD 'motcua';
CREATE ROLE intake LOGIN PASSWORD 'motcua';
CREATE ROLE queue LOGIN PASSWORD 'motcua';
CREATE ROLE reporting LOGIN PASSWORD 'motcua';

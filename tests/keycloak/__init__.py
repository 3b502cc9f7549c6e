"""The door before a real OIDC provider: Keycloak, which Maven brings and Java runs."""

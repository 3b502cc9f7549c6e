"""The city on Kubernetes: what kustomize builds, and what is written from the code for it."""

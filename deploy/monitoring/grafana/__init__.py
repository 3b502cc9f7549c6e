"""What Grafana shows and sends: dashboards and alert rules, written as code and kept as its files.

`python -m deploy.monitoring.grafana` writes the files; a test holds them against the code.
"""

"""Write Grafana's files: `python -m deploy.monitoring.grafana`."""

from deploy.monitoring.grafana.files import FOLDER, files

for path, text in files().items():
    (FOLDER / path).write_text(text, "utf-8")
    print(path)

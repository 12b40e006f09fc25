"""Gets what the chart is held against, before its tests: the processes that share them have no network."""

from tests.chart import grafana, prometheus_operator

if __name__ == "__main__":
    grafana.reader()
    prometheus_operator.definitions()

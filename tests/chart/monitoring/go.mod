// Pins the project whose CustomResourceDefinitions the chart's ServiceMonitor and PrometheusRule are checked against. No code of it is built.
module mcpfleet.dev/chart/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0

// Nothing is built here: it pins what the published definitions are taken from, and go.sum beside it vouches for them.
module lifeboat.dev/tests/chart/prometheus-operator

go 1.24

//go:build tools

// Package influxdb names what is built, so that `go mod tidy` keeps it and what it needs.
package influxdb

import (
	_ "github.com/influxdata/influxdb/v2/cmd/influxd"
	_ "github.com/influxdata/pkg-config"
)

"""Parts of Flux queries that the dashboards of several pipelines share."""

from __future__ import annotations


def before_the_end(span: str) -> str:
    """Return the time that is ``span`` before the end of the time range."""
    return f"date.sub(d: {span}, from: v.timeRangeStop)"


def tag_values(measurement: str, tag: str, where: str = "true") -> str:
    """Return a query for the values of a tag in the last 7 days: not every Grafana passes the time range to variables."""
    return f"""import "influxdata/influxdb/schema"

schema.tagValues(
  bucket: v.defaultBucket,
  tag: "{tag}",
  predicate: (r) => r._measurement == "{measurement}" and {where},
  start: -7d,
)"""

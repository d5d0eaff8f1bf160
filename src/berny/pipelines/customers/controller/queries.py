"""The queries of the dashboard, in PostgreSQL's SQL with Grafana's macros. They read columns, not the rows' JSON."""

from __future__ import annotations

from berny.controller.sql import before_the_end

# All is `.*`.
CHOSEN = "reason ~ $q$^${reason:regex}$$q$"
REASON = """SELECT DISTINCT reason FROM customers_alerts, unnest(reasons) AS reason
WHERE stored_at > now() - interval '7 days' ORDER BY 1"""
RATES = """SELECT $__timeGroupAlias(stored_at, $__interval), kind, count(*) AS rows
FROM (
  SELECT stored_at, 'USA' AS kind FROM customers WHERE $__timeFilter(stored_at)
  UNION ALL SELECT stored_at, 'alerts' AS kind FROM customers_alerts WHERE $__timeFilter(stored_at)
) AS found
GROUP BY 1, 2
ORDER BY 1, 2"""
REASONS = f"""SELECT $__timeGroupAlias(stored_at, $__interval), reason, count(*) AS rows
FROM customers_alerts, unnest(reasons) AS reason
WHERE $__timeFilter(stored_at) AND {CHOSEN}
GROUP BY 1, 2
ORDER BY 1, 2"""
LAG = """SELECT $__timeGroupAlias(stored_at, $__interval), kind, max(seconds)::float8 AS lag
FROM (
  SELECT stored_at, 'USA' AS kind, extract(epoch FROM stored_at - observed_at) AS seconds
  FROM customers WHERE $__timeFilter(stored_at)
  UNION ALL SELECT stored_at, 'alerts' AS kind, extract(epoch FROM stored_at - observed_at) AS seconds
  FROM customers_alerts WHERE $__timeFilter(stored_at)
) AS found
GROUP BY 1, 2
ORDER BY 1, 2"""

# Without rows there is no row, which is shown as missing data.
AGE = f"""SELECT extract(epoch FROM $__timeTo()::timestamptz - max(stored_at))::float8 AS age
FROM customers
WHERE {before_the_end("stored_at", "1 day")}
HAVING count(*) > 0"""
HEARTBEAT = f"""SELECT count(*) AS rows
FROM customers
WHERE {before_the_end("stored_at", "1 hour")}"""
ALERTS = f"""SELECT count(*) AS rows
FROM customers_alerts
WHERE {before_the_end("stored_at", "1 hour")}"""

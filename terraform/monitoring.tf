locals {
  runbook = "https://github.com/${var.github_repository}/blob/main/docs/runbook.md"

  # Who is notified; empty without alert_email.
  notification_channels = google_monitoring_notification_channel.email[*].id

  this_service = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.name}\""
}

resource "google_monitoring_notification_channel" "email" {
  count = length(compact([var.alert_email]))

  display_name = "${local.name}: ${var.alert_email}"
  type         = "email"
  labels       = { email_address = var.alert_email }
}

# Cloud Run logs each request with its path, which contains tickets' links and people's names. The service's own log line, with the
# route's pattern instead of the path, replaces it. Metrics are not affected.
resource "google_logging_project_exclusion" "requests" {
  name        = "${local.name}-requests"
  description = "Request paths of ${local.name} contain tickets' links; the service's own log line replaces them."
  filter      = "${local.this_service} AND log_id(\"run.googleapis.com/requests\")"
}

resource "google_logging_metric" "errors" {
  name        = "${local.name}-errors"
  description = "Log lines with the severity ERROR: each 5xx answer and each panic. Cloud Run's own lines would count an answer twice."
  filter      = "${local.this_service} AND severity>=ERROR AND NOT log_id(\"run.googleapis.com/requests\")"

  label_extractors = {
    code = "EXTRACT(jsonPayload.\"error.code\")"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    labels {
      key         = "code"
      description = "The error's code; empty if there was no request, as for a panic."
    }
  }
}

resource "google_logging_metric" "scans" {
  name        = "${local.name}-scans"
  description = "Scans, by result."
  filter      = "${local.this_service} AND jsonPayload.target=\"request\" AND jsonPayload.\"scan.result\":*"

  label_extractors = {
    result = "EXTRACT(jsonPayload.\"scan.result\")"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    labels {
      key         = "result"
      description = "accepted, or the reason of the refusal."
    }
  }
}

# Checks everything that a scan needs: the database, its schema, its clock, that it accepts a write, and its ticket secret. A database
# stopped on purpose raises no alarm.
resource "google_monitoring_uptime_check_config" "health" {
  display_name = "${local.name} /health"
  period       = "60s"
  timeout      = "10s"

  http_check {
    path         = var.activation_policy == "NEVER" ? "/health" : "/health?full=1"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }

  monitored_resource {
    type = "uptime_url"
    labels = {
      host       = trimprefix(local.public_url, "https://")
      project_id = var.project_id
    }
  }
}

resource "google_monitoring_alert_policy" "down" {
  display_name          = "${local.name} does not answer"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.notification_channels

  conditions {
    display_name = "/health failed from two places"

    condition_threshold {
      filter          = "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND resource.type=\"uptime_url\" AND metric.labels.check_id=\"${google_monitoring_uptime_check_config.health.uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "60s"

      aggregations {
        alignment_period     = "180s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.labels.host"]
      }
    }
  }

  documentation {
    content = "What to do: ${local.runbook}"
  }
}

# Uses Cloud Run's own count, which includes requests that never reached the service. A metric from the log would not exist yet when
# the first apply creates the alert.
resource "google_monitoring_alert_policy" "errors" {
  display_name          = "${local.name} fails"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.notification_channels

  conditions {
    display_name = "more than 5 5xx answers in 5 minutes"

    condition_threshold {
      filter          = "metric.type=\"run.googleapis.com/request_count\" AND ${local.this_service} AND metric.labels.response_code_class=\"5xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 5
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "What to do: ${local.runbook}"
  }
}

resource "google_monitoring_alert_policy" "forget" {
  display_name          = "${local.name} does not forget"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.notification_channels

  conditions {
    display_name = "people of a past event are not forgotten, or the job could not be started"

    condition_matched_log {
      filter = join(" OR ", [
        "(severity>=ERROR AND resource.type=\"cloud_run_job\" AND resource.labels.job_name=\"${google_cloud_run_v2_job.forget.name}\")",
        "(severity>=ERROR AND resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id=\"${google_cloud_scheduler_job.forget.name}\")",
      ])
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    content = "What to do: ${local.runbook}"
  }
}

resource "google_monitoring_alert_policy" "export" {
  display_name          = "${local.name} is not backed up"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.notification_channels

  conditions {
    display_name = "the daily export failed, or could not be started"

    condition_matched_log {
      filter = join(" OR ", [
        "(severity>=ERROR AND resource.type=\"cloud_run_job\" AND resource.labels.job_name=\"${google_cloud_run_v2_job.export.name}\")",
        "(severity>=ERROR AND resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id=\"${google_cloud_scheduler_job.export.name}\")",
      ])
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    content = "What to do: ${local.runbook}"
  }
}

# Notices a paused schedule and a job that hangs or is missing. A failed job reports an error, but a job that never runs reports
# nothing and leaves no time series. The alert is also raised an hour after the first deployment, until the first export: run that job
# once by hand.
resource "google_monitoring_alert_policy" "no_export" {
  count = var.activation_policy == "NEVER" ? 0 : 1

  display_name          = "${local.name} has no new backup"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.notification_channels

  conditions {
    display_name = "no daily export succeeded within 26 hours"

    condition_prometheus_query_language {
      query = join("", [
        "(sum(increase({\"run.googleapis.com/job/completed_execution_count\", monitored_resource=\"cloud_run_job\", ",
        "job_name=\"${google_cloud_run_v2_job.export.name}\", result=\"succeeded\"}[26h])) or vector(0)) < 1",
      ])
      duration            = "3600s"
      evaluation_interval = "600s"
    }
  }

  documentation {
    content = "What to do: ${local.runbook}"
  }
}

resource "google_monitoring_service" "service" {
  service_id   = local.name
  display_name = local.name

  basic_service {
    service_type   = "CLOUD_RUN"
    service_labels = { service_name = local.name, location = var.region }
  }
}

resource "google_monitoring_slo" "availability" {
  service             = google_monitoring_service.service.service_id
  slo_id              = "availability"
  display_name        = "999 of 1000 requests are answered without a 5xx"
  goal                = 0.999
  rolling_period_days = 28

  basic_sli {
    availability {
      enabled = true
    }
  }
}

# Includes cold starts.
resource "google_monitoring_slo" "latency" {
  service             = google_monitoring_service.service.service_id
  slo_id              = "latency"
  display_name        = "99 of 100 requests are answered within a second"
  goal                = 0.99
  rolling_period_days = 28

  basic_sli {
    latency {
      threshold = "1s"
    }
  }
}

locals {
  # Title, metric, aligner, label to group by.
  charts = [
    ["Scans per minute, by result", "logging.googleapis.com/user/${google_logging_metric.scans.name}", "ALIGN_DELTA", "metric.label.result"],
    ["Errors per minute, by code", "logging.googleapis.com/user/${google_logging_metric.errors.name}", "ALIGN_DELTA", "metric.label.code"],
    ["Requests per minute, by status class", "run.googleapis.com/request_count", "ALIGN_DELTA", "metric.label.response_code_class"],
    ["Response time, 99th percentile, ms", "run.googleapis.com/request_latencies", "ALIGN_PERCENTILE_99", "resource.label.revision_name"],
    ["Instances", "run.googleapis.com/container/instance_count", "ALIGN_MAX", "metric.label.state"],
    ["Memory of an instance, as a share of its limit", "run.googleapis.com/container/memory/utilizations", "ALIGN_PERCENTILE_99", "resource.label.revision_name"],
  ]
}

resource "google_monitoring_dashboard" "service" {
  dashboard_json = jsonencode({
    displayName = local.name
    gridLayout = {
      columns = "2" # a string, as the API returns it
      widgets = [for chart in local.charts : {
        title = chart[0]
        xyChart = {
          dataSets = [{
            plotType = "LINE"
            timeSeriesQuery = {
              timeSeriesFilter = {
                filter = "metric.type=\"${chart[1]}\" AND ${local.this_service}"
                aggregation = {
                  alignmentPeriod    = "60s"
                  perSeriesAligner   = chart[2]
                  crossSeriesReducer = chart[2] == "ALIGN_DELTA" ? "REDUCE_SUM" : "REDUCE_MAX"
                  groupByFields      = [chart[3]]
                }
              }
            }
          }]
        }
      }]
    }
  })
}

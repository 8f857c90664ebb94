locals {
  runbook = "https://github.com/${var.github_repository}/blob/main/docs/runbook.md"

  # Who is told. Empty where nobody is.
  notification_channels = google_monitoring_notification_channel.email[*].id

  this_service = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.name}\""
}

resource "google_monitoring_notification_channel" "email" {
  count = length(compact([var.alert_email]))

  display_name = "${local.name}: ${var.alert_email}"
  type         = "email"
  labels       = { email_address = var.alert_email }
}

# Cloud Run writes a line of its own for each request, with the path, which holds tickets' links and people's names. The
# service's own line, which holds the route's pattern instead, replaces it. Metrics are not touched by this.
resource "google_logging_project_exclusion" "requests" {
  name        = "${local.name}-requests"
  description = "Request paths of ${local.name} hold tickets' links; the service's own line replaces them."
  filter      = "${local.this_service} AND log_id(\"run.googleapis.com/requests\")"
}

resource "google_logging_metric" "errors" {
  name        = "${local.name}-errors"
  description = "Lines with the severity ERROR: each answer 5xx, each panic. Cloud Run's own lines would count an answer again."
  filter      = "${local.this_service} AND severity>=ERROR AND NOT log_id(\"run.googleapis.com/requests\")"

  label_extractors = {
    code = "EXTRACT(jsonPayload.\"error.code\")"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    labels {
      key         = "code"
      description = "The error's code; empty for what was no request, such as a panic."
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
      description = "accepted, or why not."
    }
  }
}

# All that a scan needs: the database, its schema, its clock, that it takes a write, the secret of its tickets. A database that was
# stopped on purpose is no alarm.
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

# By Cloud Run's own count, which also knows what never reached the service. A metric from the log would not be there yet
# when the first apply makes the alert.
resource "google_monitoring_alert_policy" "errors" {
  display_name          = "${local.name} fails"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.notification_channels

  conditions {
    display_name = "more than 5 answers 5xx in 5 minutes"

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

# A schedule that is paused, a job that hangs or is gone: what fails says so, what does not run says nothing, and then there is no
# series at all. It is raised an hour after the first deployment, too, until the first export: run that job once by hand.
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

# A cold start included.
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
  # Title, metric, how its values are put together, what is told apart.
  charts = [
    ["Scans a minute, by result", "logging.googleapis.com/user/${google_logging_metric.scans.name}", "ALIGN_DELTA", "metric.label.result"],
    ["Errors a minute, by code", "logging.googleapis.com/user/${google_logging_metric.errors.name}", "ALIGN_DELTA", "metric.label.code"],
    ["Requests a minute, by class of status", "run.googleapis.com/request_count", "ALIGN_DELTA", "metric.label.response_code_class"],
    ["Time to the answer, of 99 in 100, ms", "run.googleapis.com/request_latencies", "ALIGN_PERCENTILE_99", "resource.label.revision_name"],
    ["Instances", "run.googleapis.com/container/instance_count", "ALIGN_MAX", "metric.label.state"],
    ["Memory of an instance, of its limit", "run.googleapis.com/container/memory/utilizations", "ALIGN_PERCENTILE_99", "resource.label.revision_name"],
  ]
}

resource "google_monitoring_dashboard" "service" {
  dashboard_json = jsonencode({
    displayName = local.name
    gridLayout = {
      columns = "2" # as the API gives it back
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

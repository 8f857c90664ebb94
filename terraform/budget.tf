# The budget covers the whole project, so set the billing account in only one environment of a project.
resource "google_billing_budget" "project" {
  count = length(compact([var.billing_account]))

  billing_account = var.billing_account
  display_name    = local.name

  budget_filter {
    projects        = ["projects/${data.google_project.project.number}"]
    calendar_period = "MONTH"
  }

  amount {
    specified_amount {
      units = tostring(var.monthly_budget)
    }
  }

  threshold_rules {
    threshold_percent = 0.5
  }

  threshold_rules {
    threshold_percent = 1
  }

  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }

  # Administrators of the billing account are notified too.
  dynamic "all_updates_rule" {
    for_each = compact([var.alert_email])

    content {
      monitoring_notification_channels = local.notification_channels
    }
  }
}

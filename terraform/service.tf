resource "google_cloud_run_v2_service" "service" {
  name                 = local.name
  location             = var.region
  ingress              = "INGRESS_TRAFFIC_ALL"
  invoker_iam_disabled = var.public_access == "invoker_iam_disabled"
  deletion_protection  = local.deletion_protection

  template {
    service_account                  = local.account_of["service"]
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN1" # starts faster and needs less memory
    max_instance_request_concurrency = var.concurrency
    timeout                          = "90s" # an import may take 60 seconds

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    containers {
      image = var.image
      args  = ["serve"]

      ports {
        container_port = 8080
      }

      resources {
        limits            = { cpu = "1", memory = "256Mi" }
        cpu_idle          = true # nothing runs after a response, so idle CPU costs nothing
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge({
          DB_HOST              = local.db_host
          DB_NAME              = google_sql_database.tickets.name
          DB_POOL_MAX          = var.db_pool_max
          DB_USER              = google_sql_user.service.name
          GOOGLE_CLOUD_PROJECT = var.project_id
          LOG_FORMAT           = "json"
          PUBLIC_URL           = local.public_url
        }, local.sends_mail ? { MAIL_FROM = var.mail_from } : {})

        content {
          name  = env.key
          value = env.value
        }
      }

      # By version number, not `latest`: a revision always starts with the secrets that it was tested with.
      dynamic "env" {
        for_each = merge({
          DB_PASSWORD   = "db_password"
          ORGANIZER_KEY = "organizer_key"
          TICKET_SECRET = "ticket_secret"
        }, local.sends_mail ? { SMTP_URL = "smtp_url" } : {})

        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secret[env.value].secret_id
              version = google_secret_manager_secret_version.secret[env.value].version
            }
          }
        }
      }

      volume_mounts {
        name       = "cloudsql"
        mount_path = "/cloudsql"
      }

      # /health does not query the database: restarting the service would not repair the database.
      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30
        http_get {
          path = "/health"
        }
      }

      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 5
        failure_threshold = 3
        http_get {
          path = "/health"
        }
      }
    }

    volumes {
      name = "cloudsql"
      cloud_sql_instance {
        instances = [google_sql_database_instance.database.connection_name]
      }
    }
  }

  # A deployment is two applies. In the first, serving_revision keeps all traffic and the new revision is tested at its own
  # address; the second, without serving_revision, gives the new revision all traffic.
  dynamic "traffic" {
    for_each = compact([var.serving_revision])

    content {
      type     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
      revision = traffic.value
      percent  = 100
    }
  }

  # The target of scripts/deploy ENV roll-back.
  dynamic "traffic" {
    for_each = compact([var.previous_revision])

    content {
      type     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
      revision = traffic.value
      percent  = 0
      tag      = "previous"
    }
  }

  traffic {
    type    = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    percent = local.candidate ? 0 : 100
    tag     = local.candidate ? "candidate" : null
  }

  # A new instance cannot start without these rights.
  depends_on = [terraform_data.granted]
}

locals {
  db_host   = "/cloudsql/${google_sql_database_instance.database.connection_name}"
  candidate = length(compact([var.serving_revision])) == 1
}

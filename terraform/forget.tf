# Runs `register-ticket-api forget` every day, which erases the people of events that ended `forget_after_days` ago. It uses the service's
# account, which may erase people anyway, and runs before the export, so that the day's dump does not contain forgotten people.
resource "google_cloud_run_v2_job" "forget" {
  name                = "register-ticket-api-forget-${local.environment}"
  location            = var.region
  deletion_protection = false # it stores nothing

  template {
    template {
      service_account = local.account_of["service"]
      max_retries     = 1 # it continues where it stopped
      timeout         = "1800s"

      containers {
        image = var.image
        args  = ["forget"]

        dynamic "env" {
          for_each = {
            DB_HOST     = local.db_host
            DB_NAME     = google_sql_database.tickets.name
            DB_POOL_MAX = "1"
            DB_USER     = google_sql_user.service.name
            LOG_FORMAT  = "json"
          }

          content {
            name  = env.key
            value = env.value
          }
        }

        env {
          name = "DB_PASSWORD"
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secret["db_password"].secret_id
              version = google_secret_manager_secret_version.secret["db_password"].version
            }
          }
        }

        volume_mounts {
          name       = "cloudsql"
          mount_path = "/cloudsql"
        }
      }

      volumes {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [google_sql_database_instance.database.connection_name]
        }
      }
    }
  }

  depends_on = [terraform_data.granted]
}

resource "google_cloud_run_v2_job_iam_member" "forget" {
  name     = google_cloud_run_v2_job.forget.name
  location = var.region
  role     = "roles/run.invoker"
  member   = local.accounts.service
}

resource "google_cloud_scheduler_job" "forget" {
  name     = google_cloud_run_v2_job.forget.name
  region   = var.region
  schedule = var.forget_schedule
  paused   = var.activation_policy == "NEVER" # a stopped database cannot forget until it runs again

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.forget.id}:run"

    oauth_token {
      service_account_email = local.account_of["service"]
    }
  }

  retry_config {
    retry_count = 3
  }
}

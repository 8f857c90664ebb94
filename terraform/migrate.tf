# Runs `register-ticket-api migrate` with the owner's password, which the service never gets. scripts/deploy starts it before
# the new revision gets traffic.
resource "google_cloud_run_v2_job" "migrate" {
  name                = "register-ticket-api-migrate-${local.environment}"
  location            = var.region
  deletion_protection = false # it stores nothing

  template {
    template {
      service_account = local.account_of["migrate"]
      max_retries     = 0 # a person must look at a failed migration first
      timeout         = "600s"

      containers {
        image = var.image
        args  = ["migrate"]

        dynamic "env" {
          for_each = {
            DB_HOST         = local.db_host
            DB_MIGRATE_USER = google_sql_user.owner.name
            DB_NAME         = google_sql_database.tickets.name
            DB_USER         = google_sql_user.service.name # becomes a member of ticket_service
            LOG_FORMAT      = "json"
          }

          content {
            name  = env.key
            value = env.value
          }
        }

        env {
          name = "DB_MIGRATE_PASSWORD"
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secret["db_migrate_password"].secret_id
              version = google_secret_manager_secret_version.secret["db_migrate_password"].version
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

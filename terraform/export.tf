# Writes a daily dump of the database to a bucket that scripts/bootstrap-gcp created and that nothing here can delete. So the
# dumps survive the instance, unlike its own backups, which Google manages.
#
# It is a job with pg_dump, not Cloud SQL's export: the latter writes plain SQL to a new object name, and Cloud Scheduler cannot
# put the date into the name. The job writes the archive format that `register-ticket-api backup verify` reads.

locals {
  export_bucket = coalesce(var.backup_bucket, "${var.project_id}-ticket-backups-${local.environment}")
}

resource "google_cloud_run_v2_job" "export" {
  name                = "register-ticket-api-export-${local.environment}"
  location            = var.region
  deletion_protection = false # it stores nothing

  template {
    template {
      service_account = local.account_of["export"]
      max_retries     = 1
      timeout         = "1800s"

      containers {
        image   = var.export_image
        command = ["bash", "-c"]
        args    = [file("${path.module}/export.sh")]

        resources {
          limits = { cpu = "1", memory = "1Gi" } # the dump is in memory until it is checked
        }

        dynamic "env" {
          for_each = {
            BACKUP_DIR = "/backups"
            PGDATABASE = google_sql_database.tickets.name
            PGHOST     = local.db_host
            PGUSER     = google_sql_user.owner.name
          }

          content {
            name  = env.key
            value = env.value
          }
        }

        env {
          name = "PGPASSWORD"
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

        volume_mounts {
          name       = "backups"
          mount_path = "/backups"
        }
      }

      volumes {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [google_sql_database_instance.database.connection_name]
        }
      }

      volumes {
        name = "backups"
        gcs {
          bucket = local.export_bucket
        }
      }
    }
  }

  depends_on = [terraform_data.granted]
}

resource "google_cloud_run_v2_job_iam_member" "export" {
  name     = google_cloud_run_v2_job.export.name
  location = var.region
  role     = "roles/run.invoker"
  member   = local.accounts.export
}

resource "google_cloud_scheduler_job" "export" {
  name     = google_cloud_run_v2_job.export.name
  region   = var.region
  schedule = var.export_schedule
  paused   = var.activation_policy == "NEVER" # a stopped database does not change and cannot be dumped

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.export.id}:run"

    oauth_token {
      service_account_email = local.account_of["export"]
    }
  }

  retry_config {
    retry_count = 3
  }
}

resource "google_sql_database_instance" "database" {
  name                = coalesce(var.db_instance, local.name)
  region              = var.region
  database_version    = "POSTGRES_15"
  deletion_protection = local.deletion_protection

  settings {
    edition                     = "ENTERPRISE"
    tier                        = var.db_tier
    availability_type           = var.db_availability_type
    activation_policy           = var.activation_policy
    deletion_protection_enabled = local.deletion_protection # in Google Cloud, too, not only in Terraform
    disk_type                   = "PD_SSD"
    disk_autoresize             = true
    disk_autoresize_limit       = 50
    retain_backups_on_delete    = true

    # The public address is reachable only through a Cloud SQL connector, which checks IAM and uses TLS with a client
    # certificate. A private address would need a network, and a machine in it for migrations and queries.
    connector_enforcement = "REQUIRED"
    ip_configuration {
      ipv4_enabled = true
      ssl_mode     = "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"

      # Stated, so that another default of Google's changes nothing: an instance keeps the one it was made with.
      server_ca_mode = var.db_server_ca_mode
    }

    backup_configuration {
      enabled                        = true
      start_time                     = "08:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    final_backup_config {
      enabled        = true
      retention_days = 30
    }

    database_flags {
      name  = "max_connections"
      value = tostring(var.db_max_connections)
    }

    # Tuesday morning, UTC, when no gate is likely to be open.
    maintenance_window {
      day          = 2
      hour         = 10
      update_track = "stable"
    }
  }

  lifecycle {
    precondition {
      condition     = contains(["stg", "prd"], local.environment)
      error_message = "The workspace is ${local.environment}: select stg or prd."
    }

    precondition {
      condition     = local.connections_needed <= var.db_max_connections
      error_message = "2 × max_instances × db_pool_max + 8 is ${local.connections_needed}, more than db_max_connections, ${var.db_max_connections}."
    }
  }
}

resource "google_sql_database" "tickets" {
  name     = var.db_name
  instance = google_sql_database_instance.database.name

  # It is deleted with the instance. Dropping it separately would have to wait for the last connection.
  deletion_policy = "ABANDON"
}

# Reads the passwords back from Secret Manager, so that the database and the service get the same ones however an earlier apply
# ended. The version number shows when a password is new.
ephemeral "google_secret_manager_secret_version" "login" {
  for_each = toset(["db_migrate_password", "db_password"])

  secret  = google_secret_manager_secret.secret[each.key].secret_id
  version = google_secret_manager_secret_version.secret[each.key].version
}

resource "google_sql_user" "owner" {
  name                = var.db_migrate_user
  instance            = google_sql_database_instance.database.name
  password_wo         = ephemeral.google_secret_manager_secret_version.login["db_migrate_password"].secret_data
  password_wo_version = tonumber(google_secret_manager_secret_version.secret["db_migrate_password"].version)

  # It owns tables, so PostgreSQL would refuse to drop it. It is deleted with the instance.
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "service" {
  name                = var.db_user
  instance            = google_sql_database_instance.database.name
  password_wo         = ephemeral.google_secret_manager_secret_version.login["db_password"].secret_data
  password_wo_version = tonumber(google_secret_manager_secret_version.secret["db_password"].version)
  deletion_policy     = "ABANDON"

  # A login without a role becomes a member of cloudsqlsuperuser, which may do almost everything. This built-in role may only
  # read settings. `register-ticket-api migrate` grants access to the rows by making the login a member of ticket_service, so
  # Terraform ignores later changes of its roles. A new password may remove that role until the migrations run, right after it.
  database_roles = ["pg_read_all_settings"]

  lifecycle {
    ignore_changes = [database_roles]
  }
}

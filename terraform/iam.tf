# The rights of the accounts. Each account runs one thing; the service's also runs `forget`, which is the same program with the same
# login. scripts/bootstrap-gcp creates the accounts and lets the deployer act as them, so that it needs no rights over accounts.

locals {
  account_of = { for name in ["service", "migrate", "export"] : name => "ticket-${name}-${local.environment}@${var.project_id}.iam.gserviceaccount.com" }
  accounts   = { for name, account in local.account_of : name => "serviceAccount:${account}" }

  secret_readers = {
    service = concat(["db_password", "organizer_key", "ticket_secret"], local.sends_mail ? ["smtp_url"] : [])
    migrate = ["db_migrate_password"]
    export  = ["db_migrate_password"]
  }
}

resource "google_project_iam_member" "database" {
  for_each = local.accounts

  project = var.project_id
  role    = "roles/cloudsql.client"
  member  = each.value

  condition {
    title      = "only-${google_sql_database_instance.database.name}"
    expression = "resource.service == 'sqladmin.googleapis.com' && resource.name == 'projects/${var.project_id}/instances/${google_sql_database_instance.database.name}'"
  }
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = merge([
    for account, secrets in local.secret_readers : { for secret in secrets : "${account}:${secret}" => { account = account, secret = secret } }
  ]...)

  secret_id = google_secret_manager_secret.secret[each.value.secret].id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.accounts[each.value.account]
}

# A right takes a minute or two to hold everywhere, and what starts without one fails.
resource "terraform_data" "granted" {
  triggers_replace = concat(values(google_project_iam_member.database)[*].id, values(google_secret_manager_secret_iam_member.reader)[*].id)

  provisioner "local-exec" {
    command = "sleep 120"
  }
}

resource "google_cloud_run_v2_service_iam_member" "public" {
  count = var.public_access == "all_users" ? 1 : 0

  name     = google_cloud_run_v2_service.service.name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

# Release 0.1.0 managed these accounts here. They stay; scripts/bootstrap-gcp manages them now.
removed {
  from = google_service_account.service
  lifecycle { destroy = false }
}

removed {
  from = google_service_account.migrate
  lifecycle { destroy = false }
}

# No secret is in the state or in a plan: values are made, or given, while Terraform runs, and only written.

locals {
  secret_values = {
    db_migrate_password = var.db_migrate_password
    db_password         = var.db_password
    organizer_key       = var.organizer_key
    ticket_secret       = var.ticket_secret
  }
}

ephemeral "random_password" "secret" {
  for_each = var.secrets_version

  length  = 40
  special = false # they become parts of URLs and headers
}

resource "google_secret_manager_secret" "secret" {
  for_each = var.secrets_version

  secret_id           = "${local.name}-${replace(each.key, "_", "-")}"
  deletion_protection = local.deletion_protection

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "secret" {
  for_each = var.secrets_version

  secret                 = google_secret_manager_secret.secret[each.key].id
  secret_data_wo         = coalesce(local.secret_values[each.key], ephemeral.random_password.secret[each.key].result)
  secret_data_wo_version = each.value

  # The revision that serves starts new instances with the version it was deployed with, until the next one has proved
  # itself, and after a roll-back.
  deletion_policy = "ABANDON"

  lifecycle {
    create_before_destroy = true
  }
}

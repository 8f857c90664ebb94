# The state and plans contain no secrets: values are generated or passed in while Terraform runs, and are write-only.

locals {
  # Whether mail is configured is not a secret; the server is.
  sends_mail = length(compact([var.mail_from])) == 1
  secrets    = { for name, number in var.secrets_version : name => number if name != "smtp_url" || local.sends_mail }

  secret_values = {
    db_migrate_password = var.db_migrate_password
    db_password         = var.db_password
    organizer_key       = var.organizer_key
    ticket_secret       = var.ticket_secret
  }
}

ephemeral "random_password" "secret" {
  for_each = local.secrets

  length  = 40
  special = false # the values become parts of URLs and headers
}

resource "google_secret_manager_secret" "secret" {
  for_each = local.secrets

  secret_id           = "${local.name}-${replace(each.key, "_", "-")}"
  deletion_protection = local.deletion_protection

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "secret" {
  for_each = local.secrets

  secret = google_secret_manager_secret.secret[each.key].id
  # A mail server cannot be generated: if none is given for a new version, Secret Manager rejects the empty value.
  secret_data_wo         = each.key == "smtp_url" ? try(coalesce(var.smtp_url), "") : coalesce(local.secret_values[each.key], ephemeral.random_password.secret[each.key].result)
  secret_data_wo_version = each.value

  # The serving revision starts new instances with the version that it was deployed with, until the next revision takes over, and
  # again after a roll-back.
  deletion_policy = "ABANDON"

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  environment = coalesce(var.environment, terraform.workspace)
  name        = "register-ticket-api-${local.environment}"

  # Production is protected unless the variable says otherwise, as in scripts/teardown.
  deletion_protection = coalesce(var.deletion_protection, local.environment == "prd")

  # Two revisions overlap in a deployment, and each of their instances may fill its pool. The other 8 connections are for the
  # migration, forgetting, the export, a person with psql, and those that PostgreSQL reserves for superusers.
  connections_needed = 2 * var.max_instances * var.db_pool_max + 8

  # Cloud Run's address of a service is known before the service exists, so it can be one of the service's settings.
  public_url = coalesce(var.public_url, "https://${local.name}-${data.google_project.project.number}.${var.region}.run.app")
}

data "google_project" "project" {}

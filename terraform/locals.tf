locals {
  environment = coalesce(var.environment, terraform.workspace)
  name        = "register-ticket-api-${local.environment}"

  # Production is protected unless somebody says otherwise, as scripts/teardown does.
  deletion_protection = coalesce(var.deletion_protection, local.environment == "prd")

  # Two revisions overlap in a deployment, and each of their instances may fill its pool. 8 are for the migration, forgetting, the
  # export, a person with psql, and those that PostgreSQL keeps for superusers.
  connections_needed = 2 * var.max_instances * var.db_pool_max + 8

  # The address that Cloud Run gives a service is known before the service is there, so the service can be told it.
  public_url = coalesce(var.public_url, "https://${local.name}-${data.google_project.project.number}.${var.region}.run.app")
}

data "google_project" "project" {}

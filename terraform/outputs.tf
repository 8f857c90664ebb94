output "candidate_url" {
  description = "The address of the latest revision, whether or not it has traffic."
  value = coalesce(
    one([for target in google_cloud_run_v2_service.service.traffic_statuses : target.uri if target.tag == "candidate"]),
    google_cloud_run_v2_service.service.uri,
  )
}

output "cloud_run_service_url" {
  description = "The address of the service on Cloud Run."
  value       = google_cloud_run_v2_service.service.uri
}

output "db_connection_name" {
  description = "PROJECT:REGION:INSTANCE, for the Cloud SQL proxy."
  value       = google_sql_database_instance.database.connection_name
}

output "db_host" {
  description = "The setting DB_HOST on Cloud Run."
  value       = local.db_host
}

output "db_instance" {
  description = "The Cloud SQL instance, for gcloud sql."
  value       = google_sql_database_instance.database.name
}

output "db_migrate_user" {
  description = "The login that owns the schema."
  value       = google_sql_user.owner.name
}

output "db_name" {
  description = "The database."
  value       = google_sql_database.tickets.name
}

output "db_user" {
  description = "The login that the service runs as."
  value       = google_sql_user.service.name
}

output "export_bucket" {
  description = "The bucket with the daily dumps, tickets-YYYYMMDD-HHMMSSZ.dump."
  value       = local.export_bucket
}

output "export_job" {
  description = "The job that dumps the database; it can be run by hand."
  value       = google_cloud_run_v2_job.export.name
}

output "forget_job" {
  description = "The job that forgets the people of past events; it can be run by hand."
  value       = google_cloud_run_v2_job.forget.name
}

output "latest_revision" {
  description = "The newest revision that became ready."
  value       = reverse(split("/", google_cloud_run_v2_service.service.latest_ready_revision))[0]
}

output "migrate_job" {
  description = "The job that migrates the database."
  value       = google_cloud_run_v2_job.migrate.name
}

output "project_id" {
  description = "The Google Cloud project."
  value       = var.project_id
}

output "public_url" {
  description = "The public address of the service."
  value       = local.public_url
}

output "region" {
  description = "The region in which everything runs."
  value       = var.region
}

output "secret_names" {
  description = "The secrets' names in Secret Manager."
  value       = { for key, secret in google_secret_manager_secret.secret : key => secret.secret_id }
}

output "service_name" {
  description = "The Cloud Run service."
  value       = google_cloud_run_v2_service.service.name
}

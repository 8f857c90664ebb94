# Tests plans from an empty state. They send nothing to Google, so they need no credentials. They do not use
# `mock_provider "google" {}`, because mocks do not support ephemeral resources, and the passwords come from one.

provider "google" {
  access_token = "none"
  project      = "a-project"
}

override_data {
  target          = data.google_project.project
  override_during = plan
  values          = { number = "123456789012" }
}

override_resource {
  target          = google_sql_database_instance.database
  override_during = plan
  values          = { connection_name = "a-project:us-central1:an-instance" }
}

# The values of environments/stg.tfvars, and those from a workflow.
variables {
  environment        = "stg"
  project_id         = "a-project"
  github_repository  = "an-owner/register-ticket-api"
  image              = "docker.io/somebody/register-ticket-api@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  db_tier            = "db-f1-micro"
  db_max_connections = 25
  db_pool_max        = 4
  max_instances      = 2
  alert_email        = "someone@example.org"
  billing_account    = "000000-000000-000000"
}

# One run for each set of variables, because each run restarts the providers. The assertions' messages state the rules.

run "staging" {
  command = plan

  assert {
    condition     = length(google_sql_database_instance.database.settings[0].ip_configuration[0].authorized_networks) == 0
    error_message = "No network may be authorized."
  }

  assert {
    condition     = google_sql_database_instance.database.settings[0].connector_enforcement == "REQUIRED"
    error_message = "Only connectors may connect."
  }

  assert {
    condition     = google_sql_database_instance.database.settings[0].ip_configuration[0].ssl_mode == "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"
    error_message = "Only TLS with a client certificate may be used."
  }

  assert {
    condition     = google_sql_database_instance.database.settings[0].ip_configuration[0].server_ca_mode == "GOOGLE_MANAGED_INTERNAL_CA"
    error_message = "Its certificate must be signed by an authority of its own."
  }

  assert {
    condition = alltrue([
      google_sql_database_instance.database.database_version == "POSTGRES_15",
      google_sql_database_instance.database.settings[0].edition == "ENTERPRISE",
    ])
    error_message = "It must be PostgreSQL 15, ENTERPRISE."
  }

  assert {
    condition = alltrue([
      google_sql_database_instance.database.settings[0].backup_configuration[0].enabled,
      google_sql_database_instance.database.settings[0].backup_configuration[0].point_in_time_recovery_enabled,
      google_sql_database_instance.database.settings[0].final_backup_config[0].enabled,
      google_sql_database_instance.database.settings[0].retain_backups_on_delete,
    ])
    error_message = "It must have backups, point-in-time recovery and a final backup that outlive it."
  }

  assert {
    condition     = one(google_sql_database_instance.database.settings[0].database_flags) == { name = "max_connections", value = "25" }
    error_message = "It must allow as many connections as the precondition assumes."
  }

  assert {
    condition     = google_sql_user.service.database_roles == tolist(["pg_read_all_settings"])
    error_message = "Without a role it would become a member of cloudsqlsuperuser."
  }

  assert {
    condition = !anytrue(concat(
      [google_cloud_run_v2_service.service.deletion_protection, google_sql_database_instance.database.deletion_protection],
      [google_sql_database_instance.database.settings[0].deletion_protection_enabled],
      values(google_secret_manager_secret.secret)[*].deletion_protection,
    ))
    error_message = "Nothing may be protected."
  }

  assert {
    condition = { for key, reader in google_secret_manager_secret_iam_member.reader : key => "${reader.role} ${reader.member}" } == {
      "export:db_migrate_password"  = "roles/secretmanager.secretAccessor serviceAccount:ticket-export-stg@a-project.iam.gserviceaccount.com"
      "migrate:db_migrate_password" = "roles/secretmanager.secretAccessor serviceAccount:ticket-migrate-stg@a-project.iam.gserviceaccount.com"
      "service:db_password"         = "roles/secretmanager.secretAccessor serviceAccount:ticket-service-stg@a-project.iam.gserviceaccount.com"
      "service:organizer_key"       = "roles/secretmanager.secretAccessor serviceAccount:ticket-service-stg@a-project.iam.gserviceaccount.com"
      "service:ticket_secret"       = "roles/secretmanager.secretAccessor serviceAccount:ticket-service-stg@a-project.iam.gserviceaccount.com"
    }
    error_message = "The service must not read the owner's password, nor the others the service's."
  }

  assert {
    condition = alltrue([for member in google_project_iam_member.database :
      member.role == "roles/cloudsql.client" && strcontains(member.condition[0].expression, "'projects/a-project/instances/register-ticket-api-stg'")
    ])
    error_message = "Accounts may reach this instance only."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service.service.template[0].scaling[0].min_instance_count == 0,
      google_cloud_run_v2_service.service.template[0].scaling[0].max_instance_count == 2,
      google_cloud_run_v2_service.service.template[0].containers[0].resources[0].cpu_idle,
      google_cloud_run_v2_service.service.template[0].containers[0].resources[0].startup_cpu_boost,
    ])
    error_message = "No instance may run without requests, and the first must start fast."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service.service.template[0].containers[0].startup_probe[0].http_get[0].path == "/health",
      google_cloud_run_v2_service.service.template[0].containers[0].liveness_probe[0].http_get[0].path == "/health",
      google_cloud_run_v2_service.service.template[0].containers[0].ports[0].container_port == 8080,
    ])
    error_message = "Probes must request /health on port 8080."
  }

  assert {
    condition = { for env in google_cloud_run_v2_service.service.template[0].containers[0].env : env.name => env.value if length(env.value_source) == 0 } == {
      DB_HOST              = "/cloudsql/a-project:us-central1:an-instance"
      DB_NAME              = "tickets"
      DB_POOL_MAX          = "4"
      DB_USER              = "tickets_service"
      GOOGLE_CLOUD_PROJECT = "a-project"
      LOG_FORMAT           = "json"
      PUBLIC_URL           = "https://register-ticket-api-stg-123456789012.us-central1.run.app"
    }
    error_message = "Settings are missing or wrong."
  }

  assert {
    condition = { for env in google_cloud_run_v2_service.service.template[0].containers[0].env : env.name => env.value_source[0].secret_key_ref[0].secret if length(env.value_source) == 1 } == {
      DB_PASSWORD   = "register-ticket-api-stg-db-password"
      ORGANIZER_KEY = "register-ticket-api-stg-organizer-key"
      TICKET_SECRET = "register-ticket-api-stg-ticket-secret"
    }
    error_message = "Secrets must come from Secret Manager."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service.service.template[0].service_account == "ticket-service-stg@a-project.iam.gserviceaccount.com",
      one(google_cloud_run_v2_service.service.template[0].volumes[0].cloud_sql_instance[0].instances) == "a-project:us-central1:an-instance",
      google_cloud_run_v2_service.service.template[0].containers[0].volume_mounts[0].mount_path == "/cloudsql",
    ])
    error_message = "It must run as its own account, with the database's socket in /cloudsql."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_job.migrate.template[0].template[0].containers[0].image == google_cloud_run_v2_service.service.template[0].containers[0].image,
      google_cloud_run_v2_job.migrate.template[0].template[0].containers[0].args == tolist(["migrate"]),
      google_cloud_run_v2_job.migrate.template[0].template[0].service_account == "ticket-migrate-stg@a-project.iam.gserviceaccount.com",
      google_cloud_run_v2_job.migrate.template[0].template[0].max_retries == 0,
    ])
    error_message = "The migration must be the service's image, as another account."
  }

  assert {
    condition = { for env in google_cloud_run_v2_job.migrate.template[0].template[0].containers[0].env : env.name => length(env.value_source) == 0 ? env.value : env.value_source[0].secret_key_ref[0].secret } == {
      DB_HOST             = "/cloudsql/a-project:us-central1:an-instance"
      DB_MIGRATE_PASSWORD = "register-ticket-api-stg-db-migrate-password"
      DB_MIGRATE_USER     = "tickets_owner"
      DB_NAME             = "tickets"
      DB_USER             = "tickets_service"
      LOG_FORMAT          = "json"
    }
    error_message = "Settings are missing or wrong."
  }

  assert {
    condition = [for target in google_cloud_run_v2_service.service.traffic : "${target.type} ${target.percent}"] == [
      "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST 100",
    ]
    error_message = "Without serving_revision the latest must have all traffic."
  }

  assert {
    condition     = google_cloud_run_v2_service.service.traffic[0].tag == null
    error_message = "The serving revision must not be a candidate."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service_iam_member.public[0].member == "allUsers",
      google_cloud_run_v2_service_iam_member.public[0].role == "roles/run.invoker",
      google_cloud_run_v2_service.service.invoker_iam_disabled == false,
      google_cloud_run_v2_service.service.ingress == "INGRESS_TRAFFIC_ALL",
    ])
    error_message = "The public must have access."
  }

  assert {
    condition     = google_logging_project_exclusion.requests.filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"register-ticket-api-stg\" AND log_id(\"run.googleapis.com/requests\")"
    error_message = "Cloud Run's request log of this service must be dropped, and nothing else."
  }

  assert {
    condition     = google_logging_project_exclusion.requests.disabled != true
    error_message = "The exclusion must be in force."
  }

  assert {
    condition     = google_logging_metric.scans.label_extractors == tomap({ result = "EXTRACT(jsonPayload.\"scan.result\")" })
    error_message = "Scans must be counted by result."
  }

  assert {
    condition = alltrue([
      strcontains(google_logging_metric.scans.filter, "jsonPayload.\"scan.result\":*"),
      strcontains(google_logging_metric.errors.filter, "severity>=ERROR"),
      strcontains(google_logging_metric.errors.filter, "NOT log_id(\"run.googleapis.com/requests\")"),
      strcontains(google_logging_metric.errors.filter, "resource.labels.service_name=\"register-ticket-api-stg\""),
    ])
    error_message = "The metrics must count this service's log lines."
  }

  assert {
    condition = alltrue([
      google_monitoring_uptime_check_config.health.http_check[0].path == "/health?full=1",
      google_monitoring_uptime_check_config.health.period == "60s",
      google_monitoring_uptime_check_config.health.http_check[0].use_ssl,
      google_monitoring_uptime_check_config.health.monitored_resource[0].labels.host == "register-ticket-api-stg-123456789012.us-central1.run.app",
    ])
    error_message = "An external check must cover everything that a scan needs, every minute."
  }

  assert {
    condition = alltrue([
      strcontains(google_monitoring_alert_policy.errors.conditions[0].condition_threshold[0].filter, "resource.labels.service_name=\"register-ticket-api-stg\" AND metric.labels.response_code_class=\"5xx\""),
      strcontains(google_monitoring_alert_policy.export.conditions[0].condition_matched_log[0].filter, "resource.labels.job_name=\"register-ticket-api-export-stg\""),
      strcontains(google_monitoring_alert_policy.export.conditions[0].condition_matched_log[0].filter, "resource.labels.job_id=\"register-ticket-api-export-stg\""),
      strcontains(google_monitoring_alert_policy.forget.conditions[0].condition_matched_log[0].filter, "resource.labels.job_name=\"register-ticket-api-forget-stg\""),
      strcontains(google_monitoring_alert_policy.forget.conditions[0].condition_matched_log[0].filter, "resource.labels.job_id=\"register-ticket-api-forget-stg\""),
    ])
    error_message = "Failures of this service, of its export and of forgetting must raise an alert."
  }

  assert {
    condition = alltrue([
      length(google_monitoring_alert_policy.no_export) == 1,
      strcontains(google_monitoring_alert_policy.no_export[0].conditions[0].condition_prometheus_query_language[0].query, "job_name=\"register-ticket-api-export-stg\""),
      strcontains(google_monitoring_alert_policy.no_export[0].conditions[0].condition_prometheus_query_language[0].query, "[26h]"),
    ])
    error_message = "A missing export must raise an alert, too."
  }

  assert {
    condition = alltrue([
      google_monitoring_slo.availability.goal == 0.999,
      google_monitoring_slo.latency.basic_sli[0].latency[0].threshold == "1s",
      length(jsondecode(google_monitoring_dashboard.service.dashboard_json).gridLayout.widgets) == 6,
    ])
    error_message = "The dashboard and the objectives must exist."
  }

  assert {
    condition     = google_monitoring_notification_channel.email[0].labels.email_address == "someone@example.org"
    error_message = "Somebody must be notified."
  }

  assert {
    condition     = google_billing_budget.project[0].amount[0].specified_amount[0].units == "40"
    error_message = "There must be a monthly budget."
  }

  assert {
    condition     = output.export_bucket == "a-project-ticket-backups-stg"
    error_message = "The default export bucket must contain the project and the environment in its name."
  }

  assert {
    condition = alltrue([
      one([for volume in google_cloud_run_v2_job.export.template[0].template[0].volumes : volume.gcs[0].bucket if volume.name == "backups"]) == output.export_bucket,
      google_cloud_run_v2_job.export.template[0].template[0].service_account == "ticket-export-stg@a-project.iam.gserviceaccount.com",
      google_cloud_scheduler_job.export.http_target[0].oauth_token[0].service_account_email == "ticket-export-stg@a-project.iam.gserviceaccount.com",
      google_cloud_run_v2_job_iam_member.export.role == "roles/run.invoker",
      google_cloud_scheduler_job.export.paused == false,
    ])
    error_message = "The export must run daily, as the account that may write there."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_job.forget.template[0].template[0].containers[0].args == tolist(["forget"]),
      google_cloud_run_v2_job.forget.template[0].template[0].containers[0].image == google_cloud_run_v2_service.service.template[0].containers[0].image,
      google_cloud_run_v2_job.forget.template[0].template[0].service_account == "ticket-service-stg@a-project.iam.gserviceaccount.com",
      google_cloud_scheduler_job.forget.http_target[0].oauth_token[0].service_account_email == "ticket-service-stg@a-project.iam.gserviceaccount.com",
      google_cloud_run_v2_job_iam_member.forget.role == "roles/run.invoker",
      google_cloud_scheduler_job.forget.paused == false,
    ])
    error_message = "People of past events must be forgotten daily, by the service's own account and image."
  }
}

run "production_is_protected_and_shares_no_name" {
  command = plan

  variables {
    environment        = "prd"
    db_pool_max        = 5
    max_instances      = 4
    db_max_connections = 48 # just enough
  }

  assert {
    condition = alltrue(concat(
      [google_cloud_run_v2_service.service.deletion_protection, google_sql_database_instance.database.deletion_protection],
      [google_sql_database_instance.database.settings[0].deletion_protection_enabled],
      values(google_secret_manager_secret.secret)[*].deletion_protection,
    ))
    error_message = "Service, database and secrets must be protected."
  }

  assert {
    condition = alltrue([for name in concat(
      [google_cloud_run_v2_service.service.name, google_cloud_run_v2_job.migrate.name, google_cloud_run_v2_job.export.name],
      [google_cloud_scheduler_job.export.name, google_sql_database_instance.database.name, output.export_bucket],
      [google_cloud_run_v2_job.forget.name, google_cloud_scheduler_job.forget.name],
      [google_cloud_run_v2_service.service.template[0].service_account, google_cloud_run_v2_job.migrate.template[0].template[0].service_account],
      values(output.secret_names),
    ) : strcontains(name, "prd")])
    error_message = "Each name must contain the environment."
  }
}

run "teardown_lifts_the_protection_of_production" {
  command = plan

  variables {
    environment         = "prd"
    deletion_protection = false
  }

  assert {
    condition = !anytrue(concat(
      [google_cloud_run_v2_service.service.deletion_protection, google_sql_database_instance.database.deletion_protection],
      [google_sql_database_instance.database.settings[0].deletion_protection_enabled],
      values(google_secret_manager_secret.secret)[*].deletion_protection,
    ))
    error_message = "Nothing may be protected."
  }
}

run "a_stopped_database_is_neither_exported_nor_asked_to_forget" {
  command = plan

  variables {
    activation_policy = "NEVER"
  }

  assert {
    condition     = google_sql_database_instance.database.settings[0].activation_policy == "NEVER"
    error_message = "activation_policy must stop the database."
  }

  assert {
    condition     = google_cloud_scheduler_job.export.paused && google_cloud_scheduler_job.forget.paused
    error_message = "The export of a stopped database would fail every day, and so would forgetting."
  }

  assert {
    condition     = google_monitoring_uptime_check_config.health.http_check[0].path == "/health" && length(google_monitoring_alert_policy.no_export) == 0
    error_message = "A database that was stopped on purpose must raise no alarm."
  }
}

run "no_traffic_to_a_candidate" {
  command = plan

  variables {
    serving_revision  = "register-ticket-api-stg-00007-abc"
    previous_revision = "register-ticket-api-stg-00006-abc"
  }

  assert {
    condition = alltrue([
      length(google_cloud_run_v2_service.service.traffic) == 3,
      google_cloud_run_v2_service.service.traffic[0].type == "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION",
      google_cloud_run_v2_service.service.traffic[0].revision == "register-ticket-api-stg-00007-abc",
      google_cloud_run_v2_service.service.traffic[0].percent == 100,
    ])
    error_message = "The serving revision must keep all traffic."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service.service.traffic[1].revision == "register-ticket-api-stg-00006-abc",
      google_cloud_run_v2_service.service.traffic[1].percent == 0,
      google_cloud_run_v2_service.service.traffic[1].tag == "previous",
    ])
    error_message = "The revision to roll back to must keep its name."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service.service.traffic[2].type == "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST",
      google_cloud_run_v2_service.service.traffic[2].percent == 0,
      google_cloud_run_v2_service.service.traffic[2].tag == "candidate",
    ])
    error_message = "The latest revision must have an address of its own, and no traffic."
  }
}

run "everybody_may_ask_where_all_users_is_forbidden" {
  command = plan

  variables {
    public_access = "invoker_iam_disabled"
  }

  assert {
    condition     = google_cloud_run_v2_service.service.invoker_iam_disabled && length(google_cloud_run_v2_service_iam_member.public) == 0
    error_message = "The check must be off, and allUsers not granted."
  }
}

run "secrets_are_only_written_and_each_is_rotated_alone" {
  command = plan

  variables {
    organizer_key   = "a-key-that-is-only-in-a-test-abc"
    ticket_secret   = "a-secret-that-is-only-in-a-test."
    secrets_version = { organizer_key = 2 }
  }

  assert {
    condition = alltrue([for version in google_secret_manager_secret_version.secret :
      version.secret_data == null && version.secret_data_wo == null
    ])
    error_message = "Secrets must be write-only."
  }

  assert {
    condition = alltrue([for user in [google_sql_user.owner, google_sql_user.service] :
      user.password == null && user.password_wo == null
    ])
    error_message = "Passwords must be write-only."
  }

  assert {
    condition     = alltrue([for version in google_secret_manager_secret_version.secret : version.deletion_policy == "ABANDON"])
    error_message = "The old version must stay, because the serving revision needs it."
  }

  assert {
    condition = { for key, version in google_secret_manager_secret_version.secret : key => version.secret_data_wo_version } == {
      db_migrate_password = "1"
      db_password         = "1"
      organizer_key       = "2"
      ticket_secret       = "1"
    }
    error_message = "Only the organizer's key may have a new version."
  }
}

run "mail_needs_a_sender_and_its_server_is_a_secret" {
  command = plan

  variables {
    mail_from = "Tickets <tickets@example.org>"
    smtp_url  = "smtps://user:password@smtp.example.org"
  }

  assert {
    condition = alltrue([
      google_secret_manager_secret_version.secret["smtp_url"].secret_data == null,
      google_secret_manager_secret_version.secret["smtp_url"].secret_data_wo == null,
      google_secret_manager_secret_iam_member.reader["service:smtp_url"].member == "serviceAccount:ticket-service-stg@a-project.iam.gserviceaccount.com",
    ])
    error_message = "The mail server must be a secret that the service alone reads."
  }

  assert {
    condition = alltrue([
      one([for env in google_cloud_run_v2_service.service.template[0].containers[0].env : env.value if env.name == "MAIL_FROM"]) == "Tickets <tickets@example.org>",
      one([for env in google_cloud_run_v2_service.service.template[0].containers[0].env : env.value_source[0].secret_key_ref[0].secret if env.name == "SMTP_URL"]) == "register-ticket-api-stg-smtp-url",
    ])
    error_message = "The service must have both settings."
  }
}

run "what_is_empty_counts_as_not_given" {
  command = plan

  variables {
    alert_email      = ""
    billing_account  = ""
    db_password      = ""
    mail_from        = ""
    organizer_key    = ""
    serving_revision = ""
    smtp_url         = ""
    ticket_secret    = ""
  }

  assert {
    condition = alltrue([
      !contains(keys(google_secret_manager_secret.secret), "smtp_url"),
      length([for env in google_cloud_run_v2_service.service.template[0].containers[0].env : env if contains(["MAIL_FROM", "SMTP_URL"], env.name)]) == 0,
    ])
    error_message = "Without a sender no mail may be sent."
  }

  assert {
    condition     = length(google_cloud_run_v2_service.service.traffic) == 1 && google_cloud_run_v2_service.service.traffic[0].percent == 100
    error_message = "The latest must have all traffic."
  }

  assert {
    condition     = length(google_monitoring_notification_channel.email) == 0 && length(google_billing_budget.project) == 0
    error_message = "An empty address or billing account must count as none."
  }
}

run "any_other_workspace_is_refused" {
  command = plan

  variables {
    environment = null
  }

  expect_failures = [google_sql_database_instance.database]
}

run "more_connections_than_there_are_are_refused" {
  command = plan

  variables {
    db_pool_max        = 5
    max_instances      = 4
    db_max_connections = 47
  }

  expect_failures = [google_sql_database_instance.database]
}

run "a_tag_one_login_for_both_and_short_secrets_are_refused" {
  command = plan

  variables {
    image         = "docker.io/somebody/register-ticket-api:latest"
    db_user       = "tickets_owner"
    organizer_key = "thirty-one-characters-are-short"
    ticket_secret = "thirty-one-characters-are-short"
  }

  expect_failures = [var.image, var.db_user, var.organizer_key, var.ticket_secret]
}

run "a_sender_without_an_address_another_protocol_and_another_authority_are_refused" {
  command = plan

  variables {
    mail_from         = "Tickets"
    smtp_url          = "https://smtp.example.org"
    db_server_ca_mode = "CUSTOMER_MANAGED_CAS_CA"
  }

  expect_failures = [var.mail_from, var.smtp_url, var.db_server_ca_mode]
}

run "a_short_digest_and_a_key_that_no_header_carries_are_refused" {
  command = plan

  variables {
    image         = "docker.io/somebody/register-ticket-api@sha256:0123456789abcdef"
    organizer_key = "thirty-two characters with blanks"
  }

  expect_failures = [var.image, var.organizer_key]
}

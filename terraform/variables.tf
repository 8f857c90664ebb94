variable "activation_policy" {
  description = "ALWAYS, or NEVER to stop the database between events: then only its disk, its backups and its idle public address cost money."
  type        = string
  default     = "ALWAYS"

  validation {
    condition     = contains(["ALWAYS", "NEVER"], var.activation_policy)
    error_message = "Must be ALWAYS or NEVER."
  }
}

variable "alert_email" {
  description = "The e-mail address for alerts. Null or empty: alerts are only shown in the console."
  type        = string
  default     = null
}

variable "backup_bucket" {
  description = "The bucket for the daily exports, created by scripts/bootstrap-gcp. Null: PROJECT_ID-ticket-backups-ENVIRONMENT."
  type        = string
  default     = null
}

variable "billing_account" {
  description = "The billing account's id, for the budget. Null or empty: no budget."
  type        = string
  default     = null
}

variable "concurrency" {
  description = "The maximum concurrent requests of one instance."
  type        = number
  default     = 80
}

variable "db_availability_type" {
  description = "ZONAL, or REGIONAL for a standby in another zone at twice the price."
  type        = string
  default     = "ZONAL"

  validation {
    condition     = contains(["ZONAL", "REGIONAL"], var.db_availability_type)
    error_message = "Must be ZONAL or REGIONAL."
  }
}

variable "db_instance" {
  description = "The name of the Cloud SQL instance. Null: register-ticket-api-ENVIRONMENT. Choose another name if that instance was deleted recently: the name may stay reserved for a week."
  type        = string
  default     = null
}

variable "db_max_connections" {
  description = "PostgreSQL's max_connections. A tier supports 25 (db-f1-micro) or 50 (db-g1-small)."
  type        = number
}

variable "db_migrate_password" {
  description = "The password of db_migrate_user. Null or empty: one is generated. Used only when secrets_version.db_migrate_password is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true
}

variable "db_migrate_user" {
  description = "The login that owns the schema, for migrations and exports."
  type        = string
  default     = "tickets_owner"
}

variable "db_name" {
  description = "The name of the database."
  type        = string
  default     = "tickets"
}

variable "db_password" {
  description = "The password of db_user. Null or empty: one is generated. Used only when secrets_version.db_password is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true
}

variable "db_pool_max" {
  description = "The maximum database connections of one instance of the service."
  type        = number
  default     = 5
}

variable "db_server_ca_mode" {
  description = "Who signs the database's certificate: GOOGLE_MANAGED_INTERNAL_CA, the instance's own authority, or GOOGLE_MANAGED_CAS_CA, one that a region shares. An instance keeps the one it was created with."
  type        = string
  default     = "GOOGLE_MANAGED_INTERNAL_CA"

  validation {
    condition     = contains(["GOOGLE_MANAGED_INTERNAL_CA", "GOOGLE_MANAGED_CAS_CA"], var.db_server_ca_mode)
    error_message = "Must be GOOGLE_MANAGED_INTERNAL_CA or GOOGLE_MANAGED_CAS_CA."
  }
}

variable "db_tier" {
  description = "The machine tier of the database, such as db-f1-micro, db-g1-small or db-custom-1-3840."
  type        = string
}

variable "db_user" {
  description = "The service's login. It can change rows and nothing else."
  type        = string
  default     = "tickets_service"

  validation {
    condition     = var.db_user != var.db_migrate_user
    error_message = "The service and the migrations need different logins."
  }
}

variable "deletion_protection" {
  description = "Whether the service, the database and the secrets are protected from destruction. Null: only in prd."
  type        = bool
  default     = null
}

variable "environment" {
  description = "The environment, for tests, which have no workspace. Null: the workspace's name."
  type        = string
  default     = null
}

variable "export_image" {
  description = "The image with pg_dump for the daily export. It must not be older than the database's version."
  type        = string
  default     = "docker.io/library/postgres:15"
}

variable "export_schedule" {
  description = "The schedule of the database export, in UTC."
  type        = string
  default     = "17 9 * * *"
}

variable "forget_schedule" {
  description = "The schedule on which past events forget their people, in UTC."
  type        = string
  default     = "47 7 * * *"
}

variable "github_repository" {
  description = "The repository, OWNER/NAME, for the runbook's address in alerts."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "Must be OWNER/NAME."
  }
}

variable "image" {
  description = "The image to run, by digest: docker.io/USER/register-ticket-api@sha256:…"
  type        = string

  validation {
    condition     = can(regex("^[^@[:space:]]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Must end with a digest, @sha256: and 64 hexadecimal digits: a tag can be moved."
  }
}

variable "mail_from" {
  description = "The sender of mails with tickets, such as Tickets <tickets@example.org>; also needs smtp_url once. Null or empty: no mail is sent."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^([^@]+@[^@]+)?$", var.mail_from == null ? "" : var.mail_from))
    error_message = "Must contain an e-mail address."
  }
}

variable "max_instances" {
  description = "The maximum instances of one revision."
  type        = number

  validation {
    condition     = var.max_instances >= 1
    error_message = "Must be at least 1."
  }
}

variable "min_instances" {
  description = "The instances that run without requests. 1 during an event avoids cold starts, but costs money."
  type        = number
  default     = 0
}

variable "monthly_budget" {
  description = "The monthly budget, in the billing account's currency. At half and all of it an e-mail is sent; nothing is stopped."
  type        = number
  default     = 40
}

variable "organizer_key" {
  description = "The first key, at least 32 visible ASCII characters. Null or empty: one is generated. Used only when secrets_version.organizer_key is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = can(regex("^([!-~]{32,})?$", var.organizer_key == null ? "" : var.organizer_key))
    error_message = "Must have at least 32 visible ASCII characters."
  }
}

variable "previous_revision" {
  description = "The revision to roll back to, which served before the current one and is named `previous`. Null or empty: none."
  type        = string
  default     = null
}

variable "project_id" {
  description = "The Google Cloud project."
  type        = string
}

variable "public_access" {
  description = "How the public gets access: all_users grants allUsers the invoker role; invoker_iam_disabled turns the check off, for an organization whose policy forbids that."
  type        = string
  default     = "all_users"

  validation {
    condition     = contains(["all_users", "invoker_iam_disabled"], var.public_access)
    error_message = "Must be all_users or invoker_iam_disabled."
  }
}

variable "public_url" {
  description = "The public address of the service, https://… without a path. Null: the address on Cloud Run."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^https://[^/:]+$", coalesce(var.public_url, "https://example.org")))
    error_message = "Must be https:// and a host, nothing more."
  }
}

variable "region" {
  description = "The region in which everything runs."
  type        = string
  default     = "us-central1"
}

variable "secrets_version" {
  description = "Raise a secret's number to give it a new value. After a new ticket_secret every ticket needs new codes (change-secret)."
  type = object({
    db_migrate_password = optional(number, 1)
    db_password         = optional(number, 1)
    organizer_key       = optional(number, 1)
    smtp_url            = optional(number, 1)
    ticket_secret       = optional(number, 1)
  })
  default = {}
}

variable "serving_revision" {
  description = "The revision that keeps all traffic, while the latest answers only at the candidate's address. Null or empty: the latest gets all traffic."
  type        = string
  default     = null
}

variable "smtp_url" {
  description = "The mail server, such as smtps://user:password@smtp.example.org. Used only when mail_from is set and secrets_version.smtp_url is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = can(regex("^(smtps?://[!-~]+)?$", var.smtp_url == null ? "" : var.smtp_url))
    error_message = "Must be smtp:// or smtps:// and a host, without characters that a URL must escape."
  }
}

variable "ticket_secret" {
  description = "The secret from which codes are derived, at least 32 characters. Null or empty: one is generated. Used only when secrets_version.ticket_secret is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = can(regex("^(.{32,})?$", var.ticket_secret == null ? "" : var.ticket_secret))
    error_message = "Must have at least 32 characters."
  }
}

variable "activation_policy" {
  description = "ALWAYS, or NEVER to stop the database between events: its disk and backups are then all that costs."
  type        = string
  default     = "ALWAYS"

  validation {
    condition     = contains(["ALWAYS", "NEVER"], var.activation_policy)
    error_message = "Must be ALWAYS or NEVER."
  }
}

variable "alert_email" {
  description = "Who is told when something is wrong. Null or empty: alerts are only shown in the console."
  type        = string
  default     = null
}

variable "backup_bucket" {
  description = "The bucket for the daily exports, made by scripts/bootstrap-gcp. Null: PROJECT_ID-ticket-backups-ENVIRONMENT."
  type        = string
  default     = null
}

variable "billing_account" {
  description = "The billing account's id, for the budget. Null or empty: no budget."
  type        = string
  default     = null
}

variable "concurrency" {
  description = "Requests that one instance takes at once."
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
  description = "The name of the Cloud SQL instance. Null: register-ticket-api-ENVIRONMENT. Another one where that was deleted lately, as the name may stay reserved for a week."
  type        = string
  default     = null
}

variable "db_max_connections" {
  description = "PostgreSQL's max_connections. What a tier bears: 25 for db-f1-micro, 50 for db-g1-small."
  type        = number
}

variable "db_migrate_password" {
  description = "The password of db_migrate_user. Null or empty: one is made. Looked at only when secrets_version.db_migrate_password is new."
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
  description = "The database."
  type        = string
  default     = "tickets"
}

variable "db_password" {
  description = "The password of db_user. Null or empty: one is made. Looked at only when secrets_version.db_password is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true
}

variable "db_pool_max" {
  description = "Connections to the database that one instance of the service holds at most."
  type        = number
  default     = 5
}

variable "db_tier" {
  description = "The size of the database's machine, such as db-f1-micro, db-g1-small or db-custom-1-3840."
  type        = string
}

variable "db_user" {
  description = "The login that the service runs as. It can change rows and nothing else."
  type        = string
  default     = "tickets_service"

  validation {
    condition     = var.db_user != var.db_migrate_user
    error_message = "The service and the migrations need different logins."
  }
}

variable "deletion_protection" {
  description = "Whether service, database and secrets refuse to be destroyed. Null: in prd."
  type        = bool
  default     = null
}

variable "environment" {
  description = "For tests, which have no workspace. Null: the workspace is the environment."
  type        = string
  default     = null
}

variable "export_image" {
  description = "The image with pg_dump for the daily export. Its version must not be older than the database's."
  type        = string
  default     = "docker.io/library/postgres:15"
}

variable "export_schedule" {
  description = "When the database is exported, in UTC."
  type        = string
  default     = "17 9 * * *"
}

variable "forget_schedule" {
  description = "When events that are over for long enough forget their people, in UTC."
  type        = string
  default     = "47 7 * * *"
}

variable "github_repository" {
  description = "OWNER/NAME, for the runbook's address in alerts."
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
  description = "Who the mails with tickets are from, such as Tickets <tickets@example.org>; smtp_url is then needed once. Null or empty: no mail is sent."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^([^@]+@[^@]+)?$", var.mail_from == null ? "" : var.mail_from))
    error_message = "Must have an address."
  }
}

variable "max_instances" {
  description = "Instances of one revision at most."
  type        = number

  validation {
    condition     = var.max_instances >= 1
    error_message = "Must be at least 1."
  }
}

variable "min_instances" {
  description = "Instances that run while nobody asks. 1 during an event saves the cold start, and costs."
  type        = number
  default     = 0
}

variable "monthly_budget" {
  description = "The amount, in the billing account's currency, at half and all of which an e-mail is sent. It stops nothing."
  type        = number
  default     = 40
}

variable "organizer_key" {
  description = "The first key, at least 32 visible ASCII characters. Null or empty: one is made. Looked at only when secrets_version.organizer_key is new."
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
  description = "The revision to roll back to: it served before the one that serves, and is named `previous`. Null or empty: none."
  type        = string
  default     = null
}

variable "project_id" {
  description = "The Google Cloud project."
  type        = string
}

variable "public_access" {
  description = "How the public is let in: all_users grants allUsers the invoker role; invoker_iam_disabled, where an organization's policy forbids that, turns the check off."
  type        = string
  default     = "all_users"

  validation {
    condition     = contains(["all_users", "invoker_iam_disabled"], var.public_access)
    error_message = "Must be all_users or invoker_iam_disabled."
  }
}

variable "public_url" {
  description = "Where people reach the service, https://… without a path. Null: the address that Cloud Run gives it."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^https://[^/:]+$", coalesce(var.public_url, "https://example.org")))
    error_message = "Must be https:// and a host, nothing more."
  }
}

variable "region" {
  description = "Where everything runs."
  type        = string
  default     = "us-central1"
}

variable "secrets_version" {
  description = "Raise a secret's number to give it a new value. With a new ticket_secret every ticket needs new codes (change-secret)."
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
  description = "The revision that keeps all traffic, while the latest answers only at the candidate's address. Null or empty: all traffic to the latest."
  type        = string
  default     = null
}

variable "smtp_url" {
  description = "The mail server, such as smtps://user:password@smtp.example.org. Looked at only when mail_from is set, and secrets_version.smtp_url is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = can(regex("^(smtps?://[!-~]+)?$", var.smtp_url == null ? "" : var.smtp_url))
    error_message = "Must be smtp:// or smtps:// and a host, with nothing in it that a URL has to escape."
  }
}

variable "ticket_secret" {
  description = "From which codes are derived, at least 32 characters. Null or empty: one is made. Looked at only when secrets_version.ticket_secret is new."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = can(regex("^(.{32,})?$", var.ticket_secret == null ? "" : var.ticket_secret))
    error_message = "Must have at least 32 characters."
  }
}

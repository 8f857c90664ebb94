terraform {
  required_version = ">= 1.11" # write-only arguments

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 8.7"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7" # the ephemeral random_password
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  # The budget's API wants to know which project pays for the call, also when a person runs this.
  billing_project       = var.project_id
  user_project_override = true

  default_labels = {
    app         = "register-ticket-api"
    environment = local.environment
  }
}

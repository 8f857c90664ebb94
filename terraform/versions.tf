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

  # The budget's API requires the project that pays for the call, even when a person runs Terraform.
  billing_project       = var.project_id
  user_project_override = true

  default_labels = {
    app         = "register-ticket-api"
    environment = local.environment
  }
}

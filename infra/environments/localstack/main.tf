# What Carnax needs of AWS, in a LocalStack: bucket, queues and functions. Metadata nodes and process frontends run beside it
# as processes, since LocalStack records instances without running them. Endpoint and keys lead nowhere else: this root
# cannot touch an account.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = false
  s3_use_path_style           = true

  endpoints {
    cloudwatch     = var.endpoint
    cloudwatchlogs = var.endpoint
    iam            = var.endpoint
    lambda         = var.endpoint
    s3             = var.endpoint
    s3control      = var.endpoint
    sns            = var.endpoint
    sqs            = var.endpoint
    sts            = var.endpoint
  }
}

locals {
  object_store_endpoint = var.object_store_endpoint == "" ? var.endpoint : var.object_store_endpoint
}

module "storage" {
  source        = "../../modules/storage"
  bucket        = "${var.name}-log"
  force_destroy = true
  # LocalStack is spoken to without TLS.
  tls_only = false
}

module "monitoring" {
  source    = "../../modules/monitoring"
  name      = var.name
  functions = module.frontend_lambda.function_names
}

module "queues" {
  source = "../../modules/queues"
  name   = var.name
  queues = {
    ordered  = { fifo = true, max_receive_count = var.max_receive_count }
    standard = { fifo = false, max_receive_count = var.max_receive_count }
  }
  wakeup_queues              = ["wakeups"]
  visibility_timeout_seconds = var.visibility_timeout_seconds
  alarm_actions              = [module.monitoring.alarm_topic_arn]
}

module "frontend_lambda" {
  source                = "../../modules/frontend-lambda"
  name                  = var.name
  zip                   = var.lambda_zip
  architecture          = var.architecture
  metadata_addresses    = var.metadata_addresses
  object_store          = module.storage.object_store
  object_store_endpoint = local.object_store_endpoint
  s3_path_style         = true
  bucket_arn            = module.storage.bucket_arn
  log_objects_arn       = module.storage.log_objects_arn
  timeout_seconds       = 30
  maintenance_queue_arn = module.queues.maintenance_queue.arn
  settings              = { AWS_ENDPOINT_URL_SQS = local.object_store_endpoint }
  # Nobody outside this machine reaches it.
  url_authorization = "NONE"
  access            = "open-to-the-network"

  ingest = [
    for name, ingest in var.ingest : {
      name            = name
      queue_arn       = module.queues.queues[name].arn
      dead_letter_url = module.queues.queues[name].dead_letter_url
      dead_letter_arn = module.queues.queues[name].dead_letter_arn
      topic           = ingest.topic
      key             = ingest.key
    }
  ]
}

# A cluster in one region over three zones: three small metadata nodes, frontends as Lambda functions, and by a variable
# frontends as an auto-scaled group of machines behind a load balancer.

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
  region = var.region
  default_tags { tags = { System = var.name } }
}

locals {
  # Functions send dead letters, metadata nodes tell of commits and of maintenance. It costs more than the rest of a small
  # cluster's network, so that it is there only where somebody needs it.
  sqs_endpoint = var.frontend_service || length(var.wakeup_queues) > 0 || length(var.queues) > 0
  artifacts    = "s3://${module.storage.bucket}/${module.storage.artifacts_prefix}/${var.carnax_version}/${var.architecture}"
}

module "storage" {
  source = "../../modules/storage"
  bucket = var.bucket
}

module "network" {
  source          = "../../modules/network"
  name            = var.name
  cidr            = var.cidr
  bucket_arn      = module.storage.bucket_arn
  client_cidrs    = concat([var.cidr], var.client_cidrs)
  sqs_endpoint    = local.sqs_endpoint
  operator_access = var.operator_access
}

module "metadata_cluster" {
  source               = "../../modules/metadata-cluster"
  name                 = var.name
  vpc_id               = module.network.vpc_id
  subnets              = module.network.subnets
  security_group_id    = module.network.security_groups.metadata
  instance_type        = var.metadata_instance_type
  architecture         = var.architecture
  volume_gib           = var.metadata_volume_gib
  object_store         = module.storage.object_store
  bucket_arn           = module.storage.bucket_arn
  log_objects_arn      = module.storage.log_objects_arn
  artifact_objects_arn = module.storage.artifact_objects_arn
  artifacts            = local.artifacts
  wakeup_queue_arns    = values(module.queues.wakeup_queues)[*].arn
  maintenance_queue    = local.sqs_endpoint ? module.queues.maintenance_queue : null
}

module "frontend_lambda" {
  source             = "../../modules/frontend-lambda"
  name               = var.name
  zip                = var.lambda_zip
  architecture       = var.architecture
  metadata_addresses = module.metadata_cluster.addresses
  object_store       = module.storage.object_store
  bucket_arn         = module.storage.bucket_arn
  log_objects_arn    = module.storage.log_objects_arn
  log_retention_days = var.log_retention_days

  maintenance_queue_arn = module.queues.maintenance_queue.arn
  maintenance_schedule  = local.sqs_endpoint ? null : "rate(1 hour)"

  vpc = {
    subnet_ids         = module.network.subnets[*].id
    security_group_ids = [module.network.security_groups.lambda]
  }

  ingest = [
    for name, queue in var.queues : {
      name                    = name
      queue_arn               = module.queues.queues[name].arn
      dead_letter_url         = module.queues.queues[name].dead_letter_url
      dead_letter_arn         = module.queues.queues[name].dead_letter_arn
      topic                   = queue.topic
      key                     = queue.key
      batch_size              = queue.batch_size
      batching_window_seconds = queue.batching_window_seconds
      concurrency_max         = queue.concurrency_max
    }
  ]
}

module "frontend_service" {
  count                = var.frontend_service ? 1 : 0
  source               = "../../modules/frontend-service"
  name                 = var.name
  vpc_id               = module.network.vpc_id
  subnet_ids           = module.network.subnets[*].id
  security_group_id    = module.network.security_groups.frontend
  instance_type        = var.frontend_instance_type
  architecture         = var.architecture
  size_min             = var.frontend_size_min
  size_max             = var.frontend_size_max
  metadata_addresses   = module.metadata_cluster.addresses
  object_store         = module.storage.object_store
  bucket_arn           = module.storage.bucket_arn
  log_objects_arn      = module.storage.log_objects_arn
  artifact_objects_arn = module.storage.artifact_objects_arn
  artifacts            = local.artifacts
}

module "queues" {
  source        = "../../modules/queues"
  name          = var.name
  queues        = { for name, queue in var.queues : name => { fifo = queue.fifo, max_receive_count = queue.max_receive_count } }
  wakeup_queues = var.wakeup_queues
  alarm_actions = [module.monitoring.alarm_topic_arn]
}

module "monitoring" {
  source             = "../../modules/monitoring"
  name               = var.name
  email              = var.alarm_email
  metadata_instances = module.metadata_cluster.instances
  functions          = module.frontend_lambda.function_names
  load_balancer      = var.frontend_service ? module.frontend_service[0].load_balancer : null
}

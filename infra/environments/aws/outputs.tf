output "bucket" {
  value = module.storage.bucket
}

output "object_store" {
  description = "What CARNAX_OBJECT_STORE is to say."
  value       = module.storage.object_store
}

output "artifacts" {
  description = "Where the machines install from."
  value       = local.artifacts
}

output "metadata_addresses" {
  value = module.metadata_cluster.addresses
}

output "metadata_instances" {
  value = module.metadata_cluster.instances
}

output "queues" {
  description = "By name: url, arn, dead_letter_url, dead_letter_arn."
  value       = module.queues.queues
}

output "wakeup_queues" {
  description = "Queues that are told of commits, with the same fields."
  value       = module.queues.wakeup_queues
}

output "function_url" {
  description = "Wants requests that are signed with IAM credentials."
  value       = module.frontend_lambda.function_url
}

output "function_url_arn" {
  value = module.frontend_lambda.function_url_arn
}

output "frontend_endpoint" {
  description = "What CARNAX_ENDPOINT is to say inside the network, with the frontend service."
  value       = var.frontend_service ? module.frontend_service[0].endpoint : null
}

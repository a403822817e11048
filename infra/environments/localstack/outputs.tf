output "bucket" {
  value = module.storage.bucket
}

output "object_store" {
  description = "What CARNAX_OBJECT_STORE is to say."
  value       = module.storage.object_store
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
  value = module.frontend_lambda.function_url
}

output "function_names" {
  value = module.frontend_lambda.function_names
}

output "maintenance_queue" {
  description = "The queue that is told of maintenance jobs: what CARNAX_MAINTENANCE_QUEUE is to say at the metadata nodes."
  value       = module.queues.maintenance_queue
}

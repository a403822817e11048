locals {
  outputs = {
    for name, queue in aws_sqs_queue.work : name => {
      url             = queue.url
      arn             = queue.arn
      dead_letter_url = aws_sqs_queue.dead_letter[name].url
      dead_letter_arn = aws_sqs_queue.dead_letter[name].arn
    }
  }
}

output "queues" {
  description = "The ingest queues by name."
  value       = { for name in keys(var.queues) : name => local.outputs[name] }
}

output "wakeup_queues" {
  description = "The queues that are told of commits, by name."
  value       = { for name in var.wakeup_queues : name => local.outputs[name] }
}

output "maintenance_queue" {
  description = "The queue that is told of maintenance jobs."
  value       = local.outputs["maintenance"]
}

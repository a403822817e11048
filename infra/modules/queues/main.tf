# Queues whose messages become records, queues that are told of commits, and one that is told of maintenance; each with a queue for the messages that nobody
# could use, and an alarm on that one.

locals {
  told   = { for name in setunion(var.wakeup_queues, ["maintenance"]) : name => { fifo = false, max_receive_count = 10 } }
  queues = merge(var.queues, local.told)

  # SQS insists that names of FIFO queues end so.
  suffix = { for name, queue in local.queues : name => queue.fifo ? ".fifo" : "" }
  names  = { for name in keys(local.queues) : name => "${var.name}-${name}${local.suffix[name]}" }

  # Each queue of a pair names the other. This ARN is put together, or neither could be made first.
  arn_prefix = join(":", [
    "arn", data.aws_partition.current.partition, "sqs", data.aws_region.current.name,
    data.aws_caller_identity.current.account_id,
  ])
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

resource "aws_sqs_queue" "dead_letter" {
  for_each                  = local.queues
  name                      = "${var.name}-${each.key}-dead${local.suffix[each.key]}"
  fifo_queue                = each.value.fifo
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
  # Nobody may use our dead-letter queues for queues of their own.
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = ["${local.arn_prefix}:${local.names[each.key]}"]
  })
}

resource "aws_sqs_queue" "work" {
  for_each                   = local.queues
  name                       = local.names[each.key]
  fifo_queue                 = each.value.fifo
  visibility_timeout_seconds = var.visibility_timeout_seconds
  message_retention_seconds  = 4 * 24 * 3600
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = true
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter[each.key].arn
    maxReceiveCount     = each.value.max_receive_count
  })
}

resource "aws_cloudwatch_metric_alarm" "dead_letter" {
  for_each            = local.queues
  alarm_name          = "${var.name}-${each.key}-dead-letters"
  alarm_description   = "Messages of ${aws_sqs_queue.work[each.key].name} could not be used: read them in ${aws_sqs_queue.dead_letter[each.key].name}."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_letter[each.key].name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "oldest" {
  for_each            = local.queues
  alarm_name          = "${var.name}-${each.key}-oldest-message"
  alarm_description   = "Messages of ${aws_sqs_queue.work[each.key].name} wait for ${var.oldest_message_seconds_max} s: whoever takes them stands still or is too slow."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.work[each.key].name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_message_seconds_max
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

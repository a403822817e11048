# Frontends as Lambda functions, from one package: `http` behind a function URL, `sqs-ingest` behind queues,
# `maintenance` behind a queue or a schedule. None holds anything between two events that anybody needs.

locals {
  function_names = merge(
    { http = "${var.name}-http", maintenance = "${var.name}-maintenance" },
    length(var.ingest) > 0 ? { sqs-ingest = "${var.name}-sqs-ingest" } : {},
  )

  environment = merge(
    {
      CARNAX_METADATA      = join(",", var.metadata_addresses)
      CARNAX_OBJECT_STORE  = var.object_store
      CARNAX_S3_PATH_STYLE = tostring(var.s3_path_style)
      # The subnets are private, and security groups say who talks to whom. With certificates in the package: docs/tls.md.
      CARNAX_PLAINTEXT_BETWEEN_MACHINES = "true"
      CARNAX_ACCESS                     = coalesce(var.access, var.url_authorization == "AWS_IAM" ? "open-to-the-network" : "tokens")
    },
    var.object_store_endpoint == "" ? {} : { AWS_ENDPOINT_URL_S3 = var.object_store_endpoint },
    var.settings,
  )

  role_environment = {
    http = {
      CARNAX_LAMBDA_RESPONSES = var.url_invoke_mode == "RESPONSE_STREAM" ? "streamed" : "buffered"
    }
    maintenance = {}
    sqs-ingest = {
      CARNAX_INGEST = jsonencode([
        for mapping in var.ingest : merge(
          { queue = mapping.queue_arn, topic = mapping.topic, dead_letters = mapping.dead_letter_url },
          mapping.key == null ? {} : { key = mapping.key },
        )
      ])
    }
  }
}

# Made before the functions: a group that Lambda makes by itself keeps its logs for ever.
resource "aws_cloudwatch_log_group" "function" {
  for_each          = local.function_names
  name              = "/aws/lambda/${each.value}"
  retention_in_days = var.log_retention_days
}

resource "aws_lambda_function" "function" {
  for_each         = local.function_names
  function_name    = each.value
  role             = aws_iam_role.function[each.key].arn
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  memory_size      = var.memory_mib
  timeout          = var.timeout_seconds

  reserved_concurrent_executions = var.concurrency_max[each.key]

  environment {
    variables = merge(local.environment, local.role_environment[each.key], { CARNAX_LAMBDA_ROLE = each.key })
  }

  dynamic "vpc_config" {
    for_each = var.vpc == null ? [] : [var.vpc]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  depends_on = [aws_cloudwatch_log_group.function, aws_iam_role_policy.function]
}

# --- http

resource "aws_lambda_function_url" "http" {
  function_name      = aws_lambda_function.function["http"].function_name
  authorization_type = var.url_authorization
  invoke_mode        = var.url_invoke_mode
}

# With AWS_IAM, principals of this account need only a policy of their own: nothing is granted here. Without authorization
# Lambda wants to be told in so many words that everybody may call.
resource "aws_lambda_permission" "everybody" {
  count                  = var.url_authorization == "NONE" ? 1 : 0
  statement_id           = "everybody"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.function["http"].function_name
  principal              = "*"
  function_url_auth_type = "NONE"
}

# --- sqs-ingest

resource "aws_lambda_event_source_mapping" "ingest" {
  for_each         = { for mapping in var.ingest : mapping.name => mapping }
  event_source_arn = each.value.queue_arn
  function_name    = aws_lambda_function.function["sqs-ingest"].arn
  # A batch becomes one segment: the larger, the fewer requests to S3.
  batch_size                         = each.value.batch_size
  maximum_batching_window_in_seconds = each.value.batching_window_seconds
  # Only the messages that failed go back to the queue.
  function_response_types = ["ReportBatchItemFailures"]

  dynamic "scaling_config" {
    for_each = each.value.concurrency_max == null ? [] : [each.value.concurrency_max]
    content {
      maximum_concurrency = scaling_config.value
    }
  }
}

# --- maintenance

# The queue says only that there is something to do; the function asks the metadata nodes what.
resource "aws_lambda_event_source_mapping" "maintenance" {
  event_source_arn = var.maintenance_queue_arn
  function_name    = aws_lambda_function.function["maintenance"].arn
  batch_size       = 1
  scaling_config {
    maximum_concurrency = 2
  }
}

# For metadata nodes that cannot reach the queue.
resource "aws_cloudwatch_event_rule" "maintenance" {
  count               = var.maintenance_schedule == null ? 0 : 1
  name                = "${var.name}-maintenance"
  schedule_expression = var.maintenance_schedule
}

resource "aws_cloudwatch_event_target" "maintenance" {
  count = var.maintenance_schedule == null ? 0 : 1
  rule  = aws_cloudwatch_event_rule.maintenance[0].name
  arn   = aws_lambda_function.function["maintenance"].arn
}

resource "aws_lambda_permission" "maintenance" {
  count         = var.maintenance_schedule == null ? 0 : 1
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.function["maintenance"].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.maintenance[0].arn
}

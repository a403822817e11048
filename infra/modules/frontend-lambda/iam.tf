data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "Lambda"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  # The queues whose messages a function is invoked with.
  taken_queues = { sqs-ingest = var.ingest[*].queue_arn, maintenance = [var.maintenance_queue_arn] }
}

data "aws_iam_policy_document" "function" {
  for_each = local.function_names

  statement {
    sid       = "ReadAndWriteTheLog"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [var.log_objects_arn]
  }
  # Without it S3 answers 403 for a key that does not exist.
  statement {
    sid       = "TellAbsentFromForbidden"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]
  }
  statement {
    sid       = "WriteItsOwnLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function[each.key].arn}:*"]
  }

  dynamic "statement" {
    for_each = each.key == "maintenance" ? [1] : []
    content {
      sid       = "DeleteWhatIsNoPartOfTheLog"
      actions   = ["s3:DeleteObject"]
      resources = [var.log_objects_arn]
    }
  }

  dynamic "statement" {
    for_each = contains(keys(local.taken_queues), each.key) ? [local.taken_queues[each.key]] : []
    content {
      sid       = "TakeMessages"
      actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = each.key == "sqs-ingest" ? [1] : []
    content {
      sid       = "PutMessagesAside"
      actions   = ["sqs:SendMessage"]
      resources = var.ingest[*].dead_letter_arn
    }
  }

  # Lambda itself, with this role, plugs the function into the network.
  dynamic "statement" {
    for_each = var.vpc == null ? [] : [1]
    content {
      sid = "JoinTheNetwork"
      actions = [
        "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
      ]
      resources = ["*"]
    }
  }
  # The code of the function has the same role, and no business with network interfaces.
  dynamic "statement" {
    for_each = var.vpc == null ? [] : [1]
    content {
      sid       = "NotTheCode"
      effect    = "Deny"
      actions   = ["ec2:*"]
      resources = ["*"]
      condition {
        test     = "ArnEquals"
        variable = "lambda:SourceFunctionArn"
        values = [join(":", [
          "arn:${data.aws_partition.current.partition}:lambda:${data.aws_region.current.name}",
          "${data.aws_caller_identity.current.account_id}:function:${each.value}",
        ])]
      }
    }
  }
}

resource "aws_iam_role" "function" {
  for_each           = local.function_names
  name               = each.value
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "function" {
  for_each = local.function_names
  name     = each.key
  role     = aws_iam_role.function[each.key].id
  policy   = data.aws_iam_policy_document.function[each.key].json
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "InstancesOfThisAccount"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "frontend" {
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
    sid       = "InstallBinaries"
    actions   = ["s3:GetObject"]
    resources = [var.artifact_objects_arn]
  }
  dynamic "statement" {
    for_each = length(var.ingest_queue_arns) > 0 ? [1] : []
    content {
      sid = "TakeMessages"
      actions = [
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
      ]
      resources = var.ingest_queue_arns
    }
  }
}

resource "aws_iam_role" "frontend" {
  name               = "${var.name}-frontend"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "frontend" {
  name   = "frontend"
  role   = aws_iam_role.frontend.id
  policy = data.aws_iam_policy_document.frontend.json
}

resource "aws_iam_instance_profile" "frontend" {
  name = "${var.name}-frontend"
  role = aws_iam_role.frontend.name
}

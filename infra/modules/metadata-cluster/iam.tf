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

data "aws_iam_policy_document" "node" {
  statement {
    sid       = "ReadAndWriteTheLog"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [var.log_objects_arn]
  }
  # What lies behind two later snapshots; records are never deleted from here.
  statement {
    sid     = "DeleteOldBackups"
    actions = ["s3:DeleteObject"]
    resources = [
      for folder in ["archive", "snapshots", "snapshot-parts"] :
      "${trimsuffix(var.log_objects_arn, "*")}*/${folder}/*"
    ]
  }
  # Without it S3 answers 403 for a key that does not exist, and a node with an empty disk could not tell that there is no
  # cluster yet.
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
    for_each = length(var.wakeup_queue_arns) > 0 || var.maintenance_queue != null ? [1] : []
    content {
      sid       = "TellQueues"
      actions   = ["sqs:SendMessage", "sqs:GetQueueUrl"]
      resources = concat(var.wakeup_queue_arns, var.maintenance_queue[*].arn)
    }
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-metadata"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "node" {
  name   = "metadata-node"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.node.json
}

resource "aws_iam_instance_profile" "node" {
  name = "${var.name}-metadata"
  role = aws_iam_role.node.name
}

# A network without a way to the internet: three private subnets, one a zone, and endpoints for the two services that are
# called from inside. Whatever else a machine needs comes from the bucket.

data "aws_region" "current" {}

data "aws_availability_zones" "available" {
  state = "available"
  # Local zones lack instance types and are billed differently.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = slice(data.aws_availability_zones.available.names, 0, 3)
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

resource "aws_subnet" "private" {
  count             = 3
  vpc_id            = aws_vpc.this.id
  cidr_block        = cidrsubnet(var.cidr, 4, count.index)
  availability_zone = local.zones[count.index]
  tags              = { Name = "${var.name}-${count.index + 1}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_route_table_association" "private" {
  count          = 3
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

# The default group lets its members talk to each other; nothing uses it, and nothing should by accident.
resource "aws_default_security_group" "unused" {
  vpc_id = aws_vpc.this.id
}

# --- endpoints

data "aws_iam_policy_document" "s3_endpoint" {
  statement {
    sid     = "OnlyOurBucket"
    actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListBucket"]
    resources = [
      var.bucket_arn,
      "${var.bucket_arn}/*",
    ]
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}

# Costs nothing, and keeps the traffic of segments away from gateways that are paid by the byte.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${data.aws_region.current.name}.s3"
  route_table_ids   = [aws_route_table.private.id]
  policy            = data.aws_iam_policy_document.s3_endpoint.json
  tags              = { Name = "${var.name}-s3" }
}

# Only processes inside the network need it, to poll or to tell of commits: Lambda's event source mappings poll from outside.
resource "aws_vpc_endpoint" "sqs" {
  count               = var.sqs_endpoint ? 1 : 0
  vpc_id              = aws_vpc.this.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${data.aws_region.current.name}.sqs"
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = [aws_security_group.endpoint.id]
  private_dns_enabled = true
  tags                = { Name = "${var.name}-sqs" }
}

# SSH for operators, by IAM and without keys, public addresses or a bastion. Free of charge.
resource "aws_ec2_instance_connect_endpoint" "operators" {
  count              = var.operator_access ? 1 : 0
  subnet_id          = aws_subnet.private[0].id
  security_group_ids = [aws_security_group.operators.id]
  preserve_client_ip = false
  tags               = { Name = "${var.name}-operators" }
}

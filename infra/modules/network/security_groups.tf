# One group a role; every rule is a resource of its own, so that one can change without touching the others.

locals {
  groups = {
    metadata = aws_security_group.metadata.id
    frontend = aws_security_group.frontend.id
    lambda   = aws_security_group.lambda.id
  }

  # Metadata nodes talk to each other, and every kind of frontend talks to them.
  rpc_callers = local.groups

  # Egress to S3 leaves through the gateway endpoint, so the destination is S3's prefix list.
  s3_callers = local.groups

  # Frontends poll queues, metadata nodes tell queues of commits; functions get their messages handed in.
  sqs_callers = { for role in ["frontend", "lambda", "metadata"] : role => local.groups[role] }
}

resource "aws_security_group" "metadata" {
  name        = "${var.name}-metadata"
  description = "Metadata nodes"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "frontend" {
  name        = "${var.name}-frontend"
  description = "Frontends as processes"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "lambda" {
  name        = "${var.name}-lambda"
  description = "Frontends as Lambda functions"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "endpoint" {
  name        = "${var.name}-endpoint"
  description = "Interface endpoints"
  vpc_id      = aws_vpc.this.id
}

resource "aws_security_group" "operators" {
  name        = "${var.name}-operators"
  description = "The endpoint through which operators come in"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "metadata_rpc" {
  for_each                     = local.rpc_callers
  description                  = "RPC from ${each.key}"
  security_group_id            = aws_security_group.metadata.id
  referenced_security_group_id = each.value
  from_port                    = 7001
  to_port                      = 7001
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "metadata_rpc" {
  for_each                     = local.rpc_callers
  description                  = "RPC to metadata nodes"
  security_group_id            = each.value
  referenced_security_group_id = aws_security_group.metadata.id
  from_port                    = 7001
  to_port                      = 7001
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each          = local.s3_callers
  description       = "S3 by its gateway endpoint"
  security_group_id = each.value
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

# Clients of the load balancer: it keeps no group of its own and passes their addresses on.
resource "aws_vpc_security_group_ingress_rule" "frontend_http" {
  for_each          = toset(var.client_cidrs)
  description       = "HTTP from clients and the load balancer's health checks"
  security_group_id = aws_security_group.frontend.id
  cidr_ipv4         = each.value
  from_port         = 8080
  to_port           = 8080
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "endpoint_https" {
  for_each                     = local.sqs_callers
  description                  = "SQS for ${each.key}"
  security_group_id            = aws_security_group.endpoint.id
  referenced_security_group_id = each.value
  from_port                    = 443
  to_port                      = 443
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "endpoint_https" {
  for_each                     = local.sqs_callers
  description                  = "SQS by its interface endpoint"
  security_group_id            = each.value
  referenced_security_group_id = aws_security_group.endpoint.id
  from_port                    = 443
  to_port                      = 443
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "metadata_ssh" {
  description                  = "SSH from the operators' endpoint"
  security_group_id            = aws_security_group.metadata.id
  referenced_security_group_id = aws_security_group.operators.id
  from_port                    = 22
  to_port                      = 22
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "metadata_ssh" {
  description                  = "SSH to metadata nodes"
  security_group_id            = aws_security_group.operators.id
  referenced_security_group_id = aws_security_group.metadata.id
  from_port                    = 22
  to_port                      = 22
  ip_protocol                  = "tcp"
}

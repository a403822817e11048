# Three metadata nodes, one a zone. A node is an instance that may be thrown away, a volume that may not, and a name that
# both others know it by. The instance is replaced by `scripts/replace-metadata-node.sh`, never by a mere `apply`: three
# nodes that are exchanged at once are an outage.

data "aws_region" "current" {}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

locals {
  nodes     = { for index, subnet in var.subnets : tostring(index + 1) => subnet }
  names     = { for node in keys(local.nodes) : node => "node-${node}.${var.zone_name}" }
  addresses = [for node in sort(keys(local.nodes)) : "${local.names[node]}:7001"]
}

resource "aws_ebs_volume" "node" {
  for_each          = local.nodes
  availability_zone = each.value.zone
  type              = "gp3"
  size              = var.volume_gib
  encrypted         = true
  final_snapshot    = var.final_snapshot
  tags              = { Name = "${var.name}-metadata-${each.key}" }
}

resource "aws_instance" "node" {
  for_each               = local.nodes
  ami                    = data.aws_ssm_parameter.image.value
  instance_type          = var.instance_type
  subnet_id              = each.value.id
  vpc_security_group_ids = [var.security_group_id]
  iam_instance_profile   = aws_iam_instance_profile.node.name
  user_data = templatefile("${path.module}/templates/cloud-init.yaml.tftpl", {
    install = templatefile("${path.module}/templates/install.sh.tftpl", {
      artifacts = var.artifacts
      region    = data.aws_region.current.name
      volume_id = replace(aws_ebs_volume.node[each.key].id, "-", "")
    })
    metadata_unit = file("${path.module}/templates/carnax-metadata-node.service")
    operator_unit = file("${path.module}/templates/carnax-operator.service")
    metadata_environment = templatefile("${path.module}/templates/metadata-node.env.tftpl", {
      bootstrap    = join(",", local.addresses)
      name         = local.names[each.key]
      object_store = var.object_store
      region       = data.aws_region.current.name
      queue        = one(var.maintenance_queue[*].url)
    })
  })

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # Two hops would let containers ask for the node's credentials; there are none.
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = 8
  }

  tags = { Name = "${var.name}-metadata-${each.key}" }

  lifecycle {
    # A new image or another version of the binaries waits until the node is replaced on purpose: with `-replace` Terraform
    # takes the new values.
    ignore_changes = [ami, user_data]
  }
}

resource "aws_volume_attachment" "node" {
  for_each    = local.nodes
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.node[each.key].id
  instance_id = aws_instance.node[each.key].id
  # The unit gets its TERM and the file system is unmounted before the volume leaves.
  stop_instance_before_detaching = true
}

resource "aws_route53_zone" "private" {
  name = var.zone_name
  vpc { vpc_id = var.vpc_id }
}

# The name outlives the instance: Raft and the frontends know a node by it, whatever address it has today.
resource "aws_route53_record" "node" {
  for_each = local.nodes
  zone_id  = aws_route53_zone.private.zone_id
  name     = local.names[each.key]
  type     = "A"
  ttl      = 10
  records  = [aws_instance.node[each.key].private_ip]
}

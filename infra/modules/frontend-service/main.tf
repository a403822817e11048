# Frontends as processes: an auto-scaling group over all zones behind a load balancer of the fourth layer. They hold
# nothing that anybody needs, so that any of them may be replaced at any time.

data "aws_region" "current" {}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}"
}

resource "aws_launch_template" "frontend" {
  name                   = "${var.name}-frontend"
  image_id               = data.aws_ssm_parameter.image.value
  instance_type          = var.instance_type
  vpc_security_group_ids = [var.security_group_id]
  update_default_version = true
  user_data = base64encode(templatefile("${path.module}/templates/cloud-init.yaml.tftpl", {
    install = templatefile("${path.module}/templates/install.sh.tftpl", {
      artifacts = var.artifacts
      region    = data.aws_region.current.name
    })
    unit = file("${path.module}/templates/carnax-frontend.service")
    environment = templatefile("${path.module}/templates/frontend.env.tftpl", {
      metadata     = join(",", var.metadata_addresses)
      object_store = var.object_store
      region       = data.aws_region.current.name
      access       = var.access
      settings     = var.settings
    })
  }))

  iam_instance_profile { name = aws_iam_instance_profile.frontend.name }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      encrypted   = true
      volume_type = "gp3"
      volume_size = 8
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-frontend" }
  }
}

resource "aws_autoscaling_group" "frontend" {
  name                = "${var.name}-frontend"
  min_size            = var.size_min
  max_size            = var.size_max
  vpc_zone_identifier = var.subnet_ids
  target_group_arns   = [aws_lb_target_group.frontend.arn]
  health_check_type   = "ELB"
  # A new machine downloads and starts its binary in this time.
  health_check_grace_period = 180
  default_instance_warmup   = 120

  launch_template {
    id      = aws_launch_template.frontend.id
    version = aws_launch_template.frontend.latest_version
  }

  # A new launch template replaces the machines one after the other.
  instance_refresh {
    strategy = "Rolling"
    preferences { min_healthy_percentage = 90 }
  }
}

resource "aws_autoscaling_policy" "processor" {
  name                   = "${var.name}-frontend-processor"
  autoscaling_group_name = aws_autoscaling_group.frontend.name
  policy_type            = "TargetTrackingScaling"
  target_tracking_configuration {
    predefined_metric_specification { predefined_metric_type = "ASGAverageCPUUtilization" }
    target_value = 60
  }
}

resource "aws_lb" "frontend" {
  name                             = "${var.name}-frontend"
  internal                         = true
  load_balancer_type               = "network"
  subnets                          = var.subnet_ids
  enable_cross_zone_load_balancing = true
}

resource "aws_lb_target_group" "frontend" {
  name     = "${var.name}-frontend"
  port     = 8080
  protocol = "TCP"
  vpc_id   = var.vpc_id
  # Longer than the frontend's own drain of 30 s.
  deregistration_delay = 45

  health_check {
    protocol            = "HTTP"
    path                = "/readyz"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "frontend" {
  load_balancer_arn = aws_lb.frontend.arn
  port              = 8080
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.frontend.arn
  }
}

# Alarms on what AWS itself measures, and the topic that tells of them. What Carnax measures is under /metrics of each
# process (docs/metrics.md) and needs a scraper, which is not part of this.

resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
}

resource "aws_sns_topic_subscription" "email" {
  count     = var.email == "" ? 0 : 1
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.email
}

resource "aws_cloudwatch_metric_alarm" "metadata_node" {
  for_each            = var.metadata_instances
  alarm_name          = "${var.name}-metadata-${each.key}-down"
  alarm_description   = "Metadata node ${each.key} fails its checks. The other two carry on; a second loss stops appends and reads."
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { InstanceId = each.value }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "metadata_credits" {
  for_each            = var.metadata_instances
  alarm_name          = "${var.name}-metadata-${each.key}-credits"
  alarm_description   = "Metadata node ${each.key} has nearly used up its processor credits: it wants a larger instance."
  namespace           = "AWS/EC2"
  metric_name         = "CPUCreditBalance"
  dimensions          = { InstanceId = each.value }
  statistic           = "Minimum"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "LessThanThreshold"
  threshold           = 20
  # Instances that have no credits have no such metric.
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = {
    for pair in setproduct(keys(var.functions), ["Errors", "Throttles"]) :
    "${pair[0]}-${lower(pair[1])}" => { function = var.functions[pair[0]], metric = pair[1] }
  }
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.metric} of the function ${each.value.function}."
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = each.value.function }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "frontends" {
  count             = var.load_balancer == null ? 0 : 1
  alarm_name        = "${var.name}-frontends-unhealthy"
  alarm_description = "No frontend is ready behind the load balancer."
  namespace         = "AWS/NetworkELB"
  metric_name       = "HealthyHostCount"
  dimensions = {
    LoadBalancer = var.load_balancer.load_balancer
    TargetGroup  = var.load_balancer.target_group
  }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

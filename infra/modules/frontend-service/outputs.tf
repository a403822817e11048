output "endpoint" {
  description = "What CARNAX_ENDPOINT is to say, from inside the network."
  value       = "http://${aws_lb.frontend.dns_name}:8080"
}

output "load_balancer" {
  description = "The dimensions of the load balancer's metrics."
  value = {
    load_balancer = aws_lb.frontend.arn_suffix
    target_group  = aws_lb_target_group.frontend.arn_suffix
  }
}

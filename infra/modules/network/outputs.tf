output "vpc_id" {
  value = aws_vpc.this.id
}

output "subnets" {
  description = "The private subnets, one a zone, in the order of the zones."
  value       = [for subnet in aws_subnet.private : { id = subnet.id, zone = subnet.availability_zone }]
}

output "security_groups" {
  value = {
    metadata = aws_security_group.metadata.id
    frontend = aws_security_group.frontend.id
    lambda   = aws_security_group.lambda.id
  }
}

output "addresses" {
  description = "What CARNAX_METADATA is to say, as a list."
  value       = local.addresses
}

output "instances" {
  description = "Ids of the instances by node."
  value       = { for node, instance in aws_instance.node : node => instance.id }
}

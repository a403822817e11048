output "function_url" {
  value = aws_lambda_function_url.http.function_url
}

output "function_url_arn" {
  description = "What a caller's policy allows lambda:InvokeFunctionUrl on."
  value       = aws_lambda_function.function["http"].arn
}

output "function_names" {
  value = { for role, function in aws_lambda_function.function : role => function.function_name }
}
